//! What the tables may grow to, and what is said of chains that would need more.

use std::{fmt, io};

use serde::{Deserialize, Serialize};

/// What a class engine may grow to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Clauses of a chain.
    pub clauses: usize,
    /// Classes of IPv4 addresses, of IPv6 addresses, of services and of source ports, each; at most 65536.
    pub classes: usize,
    /// Cells of a chain, before equal rows and columns become one, and its (source, destination) pairs; of those at
    /// most 65536.
    pub cells: usize,
    /// The image, and the lists of rules passed behind its answers; of the image at most 4 GiB.
    pub bytes: usize,
    /// Bytes that the maps of all chains could come to, at four bits for a class of addresses and eight for others, while
    /// local classes lie in them. Where that is too much, or services have more than 256 classes, maps lead to blocks of local
    /// classes: one more load, and less memory for caches to hold.
    pub direct_maps: usize,
    /// Bytes that the maps of all chains could come to while they have one level. Where that is too much they have two:
    /// one more load, and little memory where chains have much in common.
    pub flat_maps: usize,
    /// Steps of building all tables, about a nanosecond each.
    pub steps: usize,
    /// Bytes that may be added so that outcomes tell the Pass rules passed: to tables, and where packets are counted. A
    /// chain that would take more than others have left does not tell; 0: none does.
    pub passes: usize,
}

impl Limits {
    /// Nothing.
    pub const NOTHING: Self = Self {
        clauses: 0,
        classes: 0,
        cells: 0,
        bytes: 0,
        direct_maps: 0,
        flat_maps: 0,
        steps: 0,
        passes: 0,
    };
}

impl Default for Limits {
    /// 256 MiB for all tables, 256 K cells (1 MiB) for one chain, some seconds; 128 KiB of maps that hold local classes,
    /// a quarter of small second caches, 4 MiB of maps of one level, of which packets in a row need a part that caches hold.
    /// Pass rules are told to nobody who does not count them.
    fn default() -> Self {
        Self {
            clauses: 1 << 14,
            classes: 1 << 16,
            cells: 1 << 18,
            bytes: 256 << 20,
            direct_maps: 128 << 10,
            flat_maps: 4 << 20,
            steps: 1 << 33,
            passes: 0,
        }
    }
}

/// The classes of 16-bit tables have to fit.
pub const MOST_CLASSES: usize = 1 << 16;
/// Offsets in words, with room for two flags, have to fit 32 bits.
pub const MOST_BYTES: usize = 1 << 32;

/// Why a chain of a family has no table here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not wanted here.
    Elsewhere,
    /// More clauses than allowed.
    Clauses {
        /// Found.
        found: usize,
        /// Allowed.
        most: usize,
    },
    /// More cells than allowed.
    Cells {
        /// Found.
        found: usize,
        /// Allowed.
        most: usize,
    },
    /// All chains together tell more classes apart than allowed.
    Classes {
        /// Of what.
        of: &'static str,
        /// Allowed.
        most: usize,
    },
    /// The image is full.
    Bytes {
        /// Needed.
        found: usize,
        /// Allowed.
        most: usize,
    },
    /// No memory, or no address space: the number of the system's error. An image is read in 16 GiB of that without asking
    /// how long it is.
    Memory(i32),
    /// Building takes too long.
    Steps {
        /// Allowed.
        most: usize,
    },
}

impl Refused {
    /// Of an error of the system.
    pub fn memory(error: &io::Error) -> Self {
        Self::Memory(error.raw_os_error().unwrap_or(libc::ENOMEM))
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elsewhere => write!(f, "in another engine"),
            Self::Clauses { found, most } => write!(f, "{found} clauses, above the budget of {most}"),
            Self::Cells { found, most } => write!(f, "{found} cells, above the budget of {most}"),
            Self::Classes { of, most } => write!(f, "more classes of {of} than {most} in all chains"),
            Self::Bytes { found, most } => write!(f, "{found} bytes of tables, above the budget of {most}"),
            Self::Memory(code) => {
                let error = io::Error::from_raw_os_error(*code);
                write!(f, "no 16 GiB of address space (ulimit -v, or too many tables), or no memory: {error}")
            }
            Self::Steps { most } => write!(f, "more steps of building than {most}"),
        }
    }
}

/// The steps of building that are left.
#[derive(Debug)]
pub struct Steps {
    left: usize,
    most: usize,
}

impl Steps {
    /// All of them.
    pub const fn new(most: usize) -> Self {
        Self { left: most, most }
    }

    /// Takes so many.
    pub fn take(&mut self, steps: usize) -> Result<(), Refused> {
        self.left = self.left.checked_sub(steps).ok_or(Refused::Steps { most: self.most })?;
        Ok(())
    }
}

/// `found` if it is no more than allowed.
pub fn within(
    found: usize,
    most: usize,
    refused: impl FnOnce(usize, usize) -> Refused,
) -> Result<usize, Refused> {
    if found > most { Err(refused(found, most)) } else { Ok(found) }
}
