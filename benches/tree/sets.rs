//! Options, rule sets and the linear scan.

use std::path::PathBuf;

use labelgate::table::tree::{Cuboid, DIMENSIONS, NONE};
use labelgate::workload::five_tuples::{self, Family, Rule};

/// What the command line asks for.
pub struct Options {
    families: Vec<Family>,
    sizes: Vec<usize>,
    files: Vec<PathBuf>,
    pub packets: usize,
    pub rounds: usize,
    pub seed: u64,
    pub peer: Option<PathBuf>,
}

impl Options {
    pub fn from_arguments() -> Self {
        let mut options = Self {
            families: Family::ALL.to_vec(),
            sizes: vec![1000, 10_000, 100_000],
            files: Vec::new(),
            packets: 1 << 18,
            rounds: 9,
            seed: 1,
            peer: None,
        };
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(name) = arguments.next() {
            let value = arguments.next().unwrap_or_else(|| panic!("{name} needs a value"));
            let number =
                || value.replace('_', "").parse::<usize>().unwrap_or_else(|_| panic!("{name} {value}"));
            match name.as_str() {
                "--sets" => options.families = value.split(',').map(family).collect(),
                "--sizes" => {
                    options.sizes = value.split(',').map(|size| size.parse().expect("a size")).collect();
                }
                "--rules" => options.files.push(value.into()),
                "--packets" => options.packets = number().next_multiple_of(crate::SLICE),
                "--rounds" => options.rounds = number(),
                "--seed" => options.seed = number() as u64,
                "--peer" => options.peer = Some(value.into()),
                _ => panic!("{name} is no option"),
            }
        }
        options
    }

    /// The files that were named, else sets of all families and sizes.
    pub fn sets(&self) -> Vec<Set> {
        if !self.files.is_empty() {
            return self.files.iter().map(Set::read).collect();
        }
        let named = |&family: &Family, size: usize| Set {
            name: format!("{}_{}k", family.name(), size / 1000),
            rules: five_tuples::rules(family, size, self.seed),
        };
        self.sizes
            .iter()
            .flat_map(|&size| self.families.iter().map(move |family| named(family, size)))
            .collect()
    }
}

fn family(name: &str) -> Family {
    Family::ALL
        .into_iter()
        .find(|family| family.name() == name)
        .unwrap_or_else(|| panic!("{name}: acl, fw or ipc"))
}

/// Rules by their name.
pub struct Set {
    pub name: String,
    pub rules: Vec<Rule>,
}

impl Set {
    /// Filters in ClassBench's format; the first of equal ones is kept.
    fn read(path: &PathBuf) -> Self {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut seen = std::collections::HashSet::new();
        let rules =
            text.lines().filter(|line| line.starts_with('@')).map(filter).filter(|rule| seen.insert(*rule));
        let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
        Self { name, rules: rules.collect() }
    }

    /// What the tree is made from: the value of a rule is its place.
    pub fn cuboids(&self) -> Vec<Cuboid> {
        let cuboid = |(value, rule): (u32, &Rule)| Cuboid { low: rule.low, high: rule.high, value };
        (0..).zip(&self.rules).map(cuboid).collect()
    }
}

/// `@1.2.3.4/32 5.6.7.8/24 0 : 65535 80 : 80 0x06/0xFF ...`
fn filter(line: &str) -> Rule {
    let words: Vec<&str> = line[1..].split_whitespace().collect();
    let number = |word: &str| -> u32 { word.parse().unwrap_or_else(|_| panic!("{line}")) };
    let prefix = |word: &str| {
        let (address, length) = word.split_once('/').unwrap_or_else(|| panic!("{line}"));
        let address = address.split('.').fold(0, |sum, byte| sum << 8 | number(byte));
        let host = u32::MAX.checked_shr(number(length)).unwrap_or(0);
        (address & !host, address | host)
    };
    let (source, destination) = (prefix(words[0]), prefix(words[1]));
    let hexadecimal = |word: &str| u32::from_str_radix(&word[2..], 16).unwrap_or_else(|_| panic!("{line}"));
    let protocol = match words[8].split_once('/').map(|(value, mask)| (hexadecimal(value), hexadecimal(mask)))
    {
        Some((_, 0)) => (0, 255),
        Some((value, _)) => (value, value),
        None => panic!("{line}"),
    };
    let first = (number(words[2]), number(words[4]));
    let second = (number(words[5]), number(words[7]));
    let fields = [source, destination, first, second, protocol];
    Rule { low: fields.map(|range| range.0), high: fields.map(|range| range.1) }
}

/// Rules compared at once by the linear scan.
const LANES: usize = 64;

/// The place of the first rule that holds each packet, or [`NONE`].
pub fn linear(rules: &[Rule], packets: &[[u32; DIMENSIONS]]) -> Vec<u32> {
    let column = |field: usize, chunk: &[Rule]| {
        let mut lanes = [(1, 0); LANES];
        for (lane, rule) in lanes.iter_mut().zip(chunk) {
            *lane = (rule.low[field], rule.high[field] - rule.low[field]);
        }
        (lanes.map(|lane| lane.0), lanes.map(|lane| lane.1))
    };
    let blocks: Vec<[([u32; LANES], [u32; LANES]); DIMENSIONS]> =
        rules.chunks(LANES).map(|chunk| std::array::from_fn(|field| column(field, chunk))).collect();
    let find = |packet: &[u32; DIMENSIONS]| {
        for (index, block) in blocks.iter().enumerate() {
            let mut held = [true; LANES];
            for (field, (low, span)) in block.iter().enumerate() {
                for lane in 0..LANES {
                    held[lane] &= packet[field].wrapping_sub(low[lane]) <= span[lane];
                }
            }
            let first = held.iter().position(|&held| held).map(|lane| index * LANES + lane);
            if let Some(rule) = first.filter(|&rule| rule < rules.len()) {
                return u32::try_from(rule).expect("fewer than 2^32 rules");
            }
        }
        NONE
    };
    packets.iter().map(find).collect()
}
