//! Every engine gives the answers of `linear`: random programs and packets, edges, batches, budgets, twins, images.

mod batches;
mod budgets;
mod choices;
mod counted;
mod edits;
mod equal;
mod gates;
mod governors;
mod hostile;
mod image;
mod packets;
mod programs;
mod random;
mod told;
mod twins;
mod widths;
