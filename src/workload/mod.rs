//! Made-up workloads for measuring and testing: seeded, so that a name and a seed give the same one everywhere.

pub mod five_tuples;
mod random;

pub use random::Random;
