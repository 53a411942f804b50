//! Which rules go into which tree: rules that reach far in one dimension would be copied into many leaves of a tree
//! that is cut in it.

use super::rules::Rule;

/// A rule is wide in a dimension if it reaches over this many of [`CELLS`].
const WIDE: usize = 2;
/// Cells of equally many edges that a dimension is parted into.
const CELLS: usize = 16;
/// Rules whose edges stand for those of all.
const SAMPLE: usize = 4096;

/// Ways to group rules, from one tree to five.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// One tree.
    Whole,
    /// Rules that are wide in both addresses apart.
    WideApart,
    /// By the address that a tree can be cut in: destination, source, neither.
    ByAddress,
    /// As `ByAddress`, with rules that name both addresses apart.
    ByAddresses,
    /// As `ByAddresses`, with rules apart that name neither an address nor a port.
    ByAddressesAndPort,
}

/// In which of source, destination, source port and second key a rule is wide.
#[derive(Clone, Copy, Debug)]
pub struct Width([bool; 4]);

impl Width {
    /// Of each rule.
    pub fn of(rules: &[Rule]) -> Vec<Self> {
        let cells: [Vec<u32>; 4] = std::array::from_fn(|dimension| cells(rules, dimension));
        let is_wide = |rule: &Rule, dimension: usize| {
            let cell = |value| cells[dimension].partition_point(|&begin| begin <= value);
            cell(rule.high[dimension]) - cell(rule.low[dimension]) >= WIDE
        };
        rules.iter().map(|rule| Self(std::array::from_fn(|dimension| is_wide(rule, dimension)))).collect()
    }
}

impl Partition {
    pub const ALL: [Self; 5] =
        [Self::Whole, Self::WideApart, Self::ByAddress, Self::ByAddresses, Self::ByAddressesAndPort];

    /// Lists of rules, each ascending; none is empty.
    pub fn divide(self, widths: &[Width]) -> Vec<Vec<u32>> {
        let mut groups = vec![Vec::new(); 5];
        for (index, &Width([source, destination, first, second])) in (0..).zip(widths) {
            let group = match self {
                Self::Whole => 0,
                Self::WideApart => usize::from(source && destination),
                Self::ByAddress => match (source, destination) {
                    (_, false) => 0,
                    (false, true) => 1,
                    (true, true) => 2,
                },
                Self::ByAddresses | Self::ByAddressesAndPort => match (source, destination) {
                    (false, false) => 0,
                    (true, false) => 1,
                    (false, true) => 2,
                    (true, true) => 3 + usize::from(self == Self::ByAddressesAndPort && first && second),
                },
            };
            groups[group].push(index);
        }
        groups.retain(|group| !group.is_empty());
        groups
    }
}

/// Where the cells of a dimension begin.
fn cells(rules: &[Rule], dimension: usize) -> Vec<u32> {
    let sample = rules.iter().step_by(rules.len().div_ceil(SAMPLE).max(1));
    let mut edges: Vec<_> = sample.flat_map(|rule| [rule.low[dimension], rule.high[dimension]]).collect();
    edges.sort_unstable();
    (1..CELLS).filter_map(|cell| edges.get(cell * edges.len() / CELLS).copied()).collect()
}
