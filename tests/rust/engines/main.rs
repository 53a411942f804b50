//! Every engine gives the answers of `linear`: random programs and packets, edges, batches, budgets, twins, images.

mod budgets;
mod choices;
mod equal;
mod packets;
mod programs;
mod random;
