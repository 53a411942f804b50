//! How much is noted of packets as they are answered. Measurements switch it in the running loop: what noting costs is
//! then the difference of two moments of one process, not of two processes.

use std::sync::atomic::{AtomicU8, Ordering};

/// Each has all that stands before it. The last one is what everybody but a measurement has, as far as it is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Noted {
    /// Hooks count in any case.
    Nothing,
    /// Rules that were met.
    Counted,
    /// Events.
    Told,
    /// Denied packets, by the flight recorder.
    Recorded,
}

impl Noted {
    /// From the least on.
    pub const ALL: [Self; 4] = [Self::Nothing, Self::Counted, Self::Told, Self::Recorded];

    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Counted => "counted",
            Self::Told => "told",
            Self::Recorded => "recorded",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|noted| noted.name() == name)
    }
}

/// What workers look at once for each batch.
#[derive(Debug)]
pub struct Switch(AtomicU8);

impl Default for Switch {
    fn default() -> Self {
        Self(AtomicU8::new(Noted::Recorded as u8))
    }
}

impl Switch {
    pub fn get(&self) -> Noted {
        Noted::ALL[usize::from(self.0.load(Ordering::Relaxed))]
    }

    pub fn set(&self, noted: Noted) {
        self.0.store(noted as u8, Ordering::Relaxed);
    }
}
