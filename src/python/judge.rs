//! One packet of one queue at a time, for handlers that are not the core's own loop: the same table and the same
//! marks as `enforce`.

use std::sync::Arc;

use pyo3::prelude::*;

use super::question::hook;
use super::table::{DecisionTuple, Table, decision_tuple};
use super::value_error;
use crate::enforce::{Marks, Protocol};
use crate::flow::{CtState, Family, FlowKey, Hook, InterfaceId, Verdict};
use crate::nfqueue::Reply;
use crate::table::DecisionTable;
use crate::wire;

/// Judges the packets of one hook and IP version.
#[pyclass(frozen, module = "labelgate._core")]
pub struct Judge {
    table: Arc<DecisionTable>,
    hook: Hook,
    family: Family,
    protocol: Protocol,
    malformed_accept: bool,
    may_repeat: bool,
}

/// The counter, the word under it, and the kernel's verdict with the mark.
type Judgement = (&'static str, &'static str, u32, Option<u32>);

#[pymethods]
impl Judge {
    #[new]
    #[allow(clippy::too_many_arguments, clippy::fn_params_excessive_bools)] // Keyword arguments of the constructor.
    #[pyo3(signature = (table, *, hook, version, marks, malformed_accept, filter_reject, filter_return,
        may_repeat))]
    fn new(
        table: &Table,
        #[pyo3(from_py_with = word)] hook: Hook,
        version: u8,
        marks: (u32, u32, u32),
        malformed_accept: bool,
        filter_reject: bool,
        filter_return: bool,
        may_repeat: bool,
    ) -> Self {
        let (accept, decided, reject) = marks;
        let protocol = Protocol { marks: Marks { accept, decided, reject }, filter_reject, filter_return };
        let family = super::family(version);
        Self { table: Arc::clone(&table.0), hook, family, protocol, malformed_accept, may_repeat }
    }

    fn judge(&self, payload: &[u8], length: usize, mark: u32, input: u32, output: u32) -> Judgement {
        // Where packets do not repeat, none goes round, and D is not ours.
        if self.may_repeat && mark & self.protocol.marks.decided != 0 {
            return judgement("loop_guard", "", self.protocol.stop_loop(mark));
        }
        match self.key(payload, length, mark, input, output) {
            Err(kind) => judgement("malformed", kind.name(), self.unread(kind, mark)),
            Ok(key) => {
                let decision = self.table.decide(&key);
                let reply = self.protocol.reply(
                    self.hook,
                    decision.verdict,
                    decision.accepted,
                    self.may_repeat,
                    mark,
                );
                judgement("verdicts", decision.verdict.name(), reply)
            }
        }
    }

    /// What decided it; None if it cannot be read.
    fn decision(
        &self,
        payload: &[u8],
        length: usize,
        mark: u32,
        input: u32,
        output: u32,
    ) -> Option<DecisionTuple<'_>> {
        let key = self.key(payload, length, mark, input, output).ok()?;
        Some(decision_tuple(&self.table, &key))
    }

    /// The kernel's verdict and mark for a verdict that somebody else gave.
    fn reply(&self, verdict: &str, mark: u32) -> PyResult<(u32, Option<u32>)> {
        let verdict = self.verdict(verdict)?;
        let accepted = match verdict {
            Verdict::Deny => false,
            Verdict::AllowNotrack | Verdict::AllowSkipHep => true,
            Verdict::Allow if self.hook == Hook::FilterForward => true,
            // Nothing that comes to raw may bring the mark (E-48).
            Verdict::Continue if matches!(self.hook, Hook::RawPrerouting | Hook::RawOutput) => false,
            Verdict::Allow | Verdict::Continue => mark & self.protocol.marks.accept != 0,
        };
        let reply = self.protocol.reply(self.hook, verdict, accepted, self.may_repeat, mark);
        Ok((reply.verdict as u32, reply.mark))
    }
}

impl Judge {
    fn key(
        &self,
        payload: &[u8],
        length: usize,
        mark: u32,
        input: u32,
        output: u32,
    ) -> Result<FlowKey, wire::WireError> {
        Ok(FlowKey {
            tuple: wire::parse(self.family, payload, length)?,
            hook: self.hook,
            input: InterfaceId(input),
            output: InterfaceId(output),
            accepted: mark & self.protocol.marks.accept != 0,
            // As in `enforce`: kernel rules settle every other state, and lead only DNATed flows there (E-37).
            ct: CtState::New,
            dnatted: self.hook == Hook::ManglePostrouting,
        })
    }

    fn unread(&self, kind: wire::WireError, mark: u32) -> Reply {
        if self.malformed_accept && !kind.may_be_sound() {
            self.protocol.pass_unread(self.hook, self.may_repeat, mark)
        } else {
            Reply::DROP
        }
    }

    fn verdict(&self, word: &str) -> PyResult<Verdict> {
        let possible: &[Verdict] = match self.hook {
            Hook::RawPrerouting | Hook::RawOutput => {
                &[Verdict::Deny, Verdict::AllowNotrack, Verdict::Continue]
            }
            Hook::ManglePrerouting => &[Verdict::Deny, Verdict::AllowSkipHep, Verdict::Continue],
            Hook::FilterInput | Hook::FilterForward | Hook::FilterOutput => {
                &[Verdict::Deny, Verdict::Allow, Verdict::Continue]
            }
            Hook::ManglePostrouting => &[Verdict::Deny, Verdict::Continue],
        };
        possible.iter().copied().find(|verdict| verdict.name() == word).ok_or_else(|| {
            let words: Vec<_> = possible.iter().map(|verdict| verdict.name()).collect();
            value_error(format!(
                "found verdict `{word}` at {}, expected one of {}",
                self.hook.name(),
                words.join(", ")
            ))
        })
    }
}

fn word(value: &Bound<'_, PyAny>) -> PyResult<Hook> {
    hook(&value.extract::<String>()?)
}

const fn judgement(counter: &'static str, word: &'static str, reply: Reply) -> Judgement {
    (counter, word, reply.verdict as u32, reply.mark)
}
