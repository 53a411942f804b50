//! What must hold for any bytes that the core's parsers are given. Each module has one `check`, which panics where
//! it does not hold: `make fuzz` feeds it what libFuzzer makes up, `cargo test` what is kept in `corpus/`.

pub mod capture;
pub mod conntrack;
#[path = "../../rust/etherparse_oracle.rs"]
mod etherparse_oracle;
pub mod message;
pub mod model;
pub mod packet;
pub mod selector;

/// A target by name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets; the name is that of the folder in `corpus/`.
pub const TARGETS: [Target; 6] = [
    ("selector", selector::check),
    ("packet", packet::check),
    ("message", message::check),
    ("conntrack", conntrack::check),
    ("model", model::check),
    ("capture", capture::check),
];
