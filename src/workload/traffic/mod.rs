//! Questions to ask of a table, by column: aimed at the rules of its program, and repeated as real traffic repeats.

mod aim;
mod targets;

use crate::flow::{EndpointId, Family, Hook, InterfaceId};
use crate::table::{Addresses, Column, Flows};

use super::Random;
use super::five_tuples::FIELDS;
use super::rule_set::number;

pub use aim::{Aim, aim};
pub use targets::{Scope, Target, targets};

/// Whom a question is put to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    /// A hook of the host.
    Hook(Hook),
    /// The ingress policy of the workload that the question names, wherever it lives.
    Workload,
}

/// Questions that are asked alike.
#[derive(Clone, Debug)]
pub struct Questions {
    /// Whom.
    pub asked: Asked,
    addresses: AddressColumns,
    protocol: Vec<u8>,
    source_port: Vec<u16>,
    destination_port: Vec<u16>,
    input: Vec<u32>,
    output: Vec<u32>,
    /// Endpoints by number.
    workload: Vec<u32>,
}

#[derive(Clone, Debug)]
enum AddressColumns {
    V4(Vec<u32>, Vec<u32>),
    V6(Vec<[u8; 16]>, Vec<[u8; 16]>),
}

/// Whom questions to a hook name.
const NOBODY: EndpointId = EndpointId::from_number(u32::MAX);

/// One question on its way into the columns; ports as in [`Flows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    source: u128,
    destination: u128,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
    input: InterfaceId,
    output: InterfaceId,
    workload: EndpointId,
}

impl Questions {
    fn new(asked: Asked, family: Family) -> Self {
        let addresses = match family {
            Family::V4 => AddressColumns::V4(Vec::new(), Vec::new()),
            Family::V6 => AddressColumns::V6(Vec::new(), Vec::new()),
        };
        Self {
            asked,
            addresses,
            protocol: Vec::new(),
            source_port: Vec::new(),
            destination_port: Vec::new(),
            input: Vec::new(),
            output: Vec::new(),
            workload: Vec::new(),
        }
    }

    /// IPv4 packets of rules, put to a hook where they come in.
    pub fn of_packets(packets: &[[u32; FIELDS]], hook: Hook, input: InterfaceId) -> Self {
        let mut questions = Self::new(Asked::Hook(hook), Family::V4);
        for &[source, destination, source_port, destination_port, protocol] in packets {
            questions.push(&Question {
                source: source.into(),
                destination: destination.into(),
                protocol: number(protocol),
                source_port: number(source_port),
                destination_port: number(destination_port),
                input,
                output: InterfaceId::NONE,
                workload: NOBODY,
            });
        }
        questions
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.protocol.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.protocol.is_empty()
    }

    /// All of them, as a table takes them. Those to [`Asked::Workload`] have no hook of their own.
    pub fn flows(&self) -> Flows<'_> {
        let addresses = match &self.addresses {
            AddressColumns::V4(source, destination) => {
                Addresses::V4 { source: Column::Each(source), destination: Column::Each(destination) }
            }
            AddressColumns::V6(source, destination) => {
                Addresses::V6 { source: Column::Each(source), destination: Column::Each(destination) }
            }
        };
        let hook = match self.asked {
            Asked::Hook(hook) => hook,
            Asked::Workload => Hook::FilterForward,
        };
        Flows {
            protocol: Column::Each(&self.protocol),
            source_port: Column::Each(&self.source_port),
            destination_port: Column::Each(&self.destination_port),
            input: column(&self.input),
            output: column(&self.output),
            ..Flows::new(hook, addresses)
        }
    }

    /// Whom each of those to [`Asked::Workload`] names.
    pub fn workloads(&self) -> &[u32] {
        &self.workload
    }

    #[allow(clippy::cast_possible_truncation)] // IPv4 numbers are below 2^32 by construction.
    fn push(&mut self, question: &Question) {
        match &mut self.addresses {
            AddressColumns::V4(source, destination) => {
                source.push(question.source as u32);
                destination.push(question.destination as u32);
            }
            AddressColumns::V6(source, destination) => {
                source.push(question.source.to_be_bytes());
                destination.push(question.destination.to_be_bytes());
            }
        }
        self.protocol.push(question.protocol);
        self.source_port.push(question.source_port);
        self.destination_port.push(question.destination_port);
        self.input.push(question.input.0);
        self.output.push(question.output.0);
        self.workload.push(question.workload.number());
    }

    /// The questions with these indices, in their order.
    fn at(&self, indices: &[usize]) -> Self {
        Self {
            asked: self.asked,
            addresses: match &self.addresses {
                AddressColumns::V4(source, destination) => {
                    AddressColumns::V4(taken(source, indices), taken(destination, indices))
                }
                AddressColumns::V6(source, destination) => {
                    AddressColumns::V6(taken(source, indices), taken(destination, indices))
                }
            },
            protocol: taken(&self.protocol, indices),
            source_port: taken(&self.source_port, indices),
            destination_port: taken(&self.destination_port, indices),
            input: taken(&self.input, indices),
            output: taken(&self.output, indices),
            workload: taken(&self.workload, indices),
        }
    }

    /// As many questions, of which a few make up most: the n-th is asked 1/n times as often as the first (Zipf's law,
    /// over the first 100,000).
    #[must_use]
    #[allow(clippy::cast_precision_loss)] // Ranks and weights are far below 2^52.
    pub fn repeated(&self, random: &mut Random) -> Self {
        let ranks = self.len().min(100_000);
        let mut sum = 0.0;
        let mut cumulated = Vec::with_capacity(ranks);
        for rank in 1..=ranks {
            sum += 1.0 / rank as f64;
            cumulated.push(sum);
        }
        let mut draw = || {
            let share = (random.bits() >> 11) as f64 / (1_u64 << 53) as f64;
            cumulated.partition_point(|&upto| upto <= share * sum).min(ranks - 1)
        };
        let indices: Vec<_> = (0..self.len()).map(|_| draw()).collect();
        self.at(&indices)
    }
}

/// One value where all are the same, as a caller would pass it.
fn column<T: Copy + PartialEq>(values: &[T]) -> Column<'_, T> {
    match values {
        [first, rest @ ..] if rest.iter().all(|value| value == first) => Column::One(*first),
        _ => Column::Each(values),
    }
}

fn taken<T: Copy>(values: &[T], indices: &[usize]) -> Vec<T> {
    indices.iter().map(|&index| values[index]).collect()
}
