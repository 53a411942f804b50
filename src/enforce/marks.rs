//! The mark protocol: how a hook's verdict is said to the kernel.
//!
//! Three bits of the packet mark are ours. **A** (accept) travels from raw and mangle into filter (E-48). **D**
//! (decided) is set on every packet that passes its table a second time: our chain's first rule there does what is
//! due (no connection tracking, reject), clears D and returns, so that the rules of others stay in force. **R**
//! (reject) asks our chain for an ICMP error or a TCP reset. From raw to filter OUTPUT packets of this host may have R in
//! the place of A: rules see to that (`python/labelgate/netfilter/raw.py`).

use crate::flow::{Hook, Verdict};
use crate::nfqueue::{KernelVerdict, Reply};

/// The three bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// A: accepted.
    pub accept: u32,
    /// D: decided.
    pub decided: u32,
    /// R: to be rejected.
    pub reject: u32,
}

impl Marks {
    /// The bits of a mask that has exactly three: lowest A, middle D, highest R.
    pub fn from_mask(mask: u32) -> Option<Self> {
        if mask.count_ones() != 3 {
            return None;
        }
        let accept = 1 << mask.trailing_zeros();
        let reject = 1 << mask.ilog2();
        Some(Self { accept, decided: mask & !(accept | reject), reject })
    }

    /// All three.
    pub const fn mask(self) -> u32 {
        self.accept | self.decided | self.reject
    }
}

/// How verdicts are said, apart from the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// Our bits.
    pub marks: Marks,
    /// `FilterDenyAction` is Reject: filter denials are answered with an error.
    pub filter_reject: bool,
    /// `FilterAllowAction` is Return: what filter allows goes on in the base chain.
    pub filter_return: bool,
}

impl Protocol {
    /// The reply to a packet that came with mark `arrival`.
    ///
    /// `accepted` is bit A as the hook leaves it. Without `may_repeat` (rules of others ahead of ours would erase D
    /// and let the packet go round for ever) what would return to the table leaves it, a rejection is a silent
    /// drop, and `allow-notrack`, which needs the second pass, is answered as `continue`.
    pub fn reply(
        &self,
        hook: Hook,
        verdict: Verdict,
        accepted: bool,
        may_repeat: bool,
        arrival: u32,
    ) -> Reply {
        let Marks { accept, decided, reject } = self.marks;
        let is_filter = matches!(hook, Hook::FilterInput | Hook::FilterForward | Hook::FilterOutput);
        let cannot_untrack = verdict == Verdict::AllowNotrack && !may_repeat;
        let bit_a = if accepted && !cannot_untrack { accept } else { 0 };
        match verdict {
            Verdict::Deny if is_filter && self.filter_reject && may_repeat => {
                self.marked(KernelVerdict::Repeat, decided | reject, arrival)
            }
            Verdict::Deny => Reply::DROP,
            Verdict::Allow if is_filter && self.is_final(hook, accepted) => {
                self.marked(KernelVerdict::Accept, bit_a, arrival)
            }
            _ if may_repeat => self.marked(KernelVerdict::Repeat, decided | bit_a, arrival),
            _ => self.marked(KernelVerdict::Accept, bit_a, arrival),
        }
    }

    /// In FORWARD an allow that sets A is answered by our rule at the end of the base chain (E-39).
    fn is_final(&self, hook: Hook, accepted: bool) -> bool {
        !(self.filter_return || hook == Hook::FilterForward && accepted)
    }

    /// The reply to a packet that came back to the queue with D set, although our chain should have caught it: it
    /// must not go round again. One that was to be rejected stays denied.
    pub fn stop_loop(&self, arrival: u32) -> Reply {
        if arrival & self.marks.reject != 0 {
            return Reply::DROP;
        }
        self.marked(KernelVerdict::Accept, arrival & self.marks.accept, arrival)
    }

    /// The reply to a packet that cannot be read although `accept` says that it shall pass: as far as it is ours to
    /// say.
    pub fn pass_unread(&self, hook: Hook, may_repeat: bool, arrival: u32) -> Reply {
        let is_raw = matches!(hook, Hook::RawPrerouting | Hook::RawOutput);
        let is_mangle = matches!(hook, Hook::ManglePrerouting | Hook::ManglePostrouting);
        let verdict = if is_raw || is_mangle { Verdict::Continue } else { Verdict::Allow };
        let accepted = !is_raw && arrival & self.marks.accept != 0;
        self.reply(hook, verdict, accepted, may_repeat, arrival)
    }

    /// A verdict replaces the whole mark: bits of others are put back, and nothing is sent where nothing changes
    /// (equal replies share one message).
    fn marked(&self, verdict: KernelVerdict, bits: u32, arrival: u32) -> Reply {
        let mark = arrival & !self.marks.mask() | bits;
        Reply { verdict, mark: (mark != arrival).then_some(mark) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: u32 = 0x0100;
    const D: u32 = 0x0400;
    const R: u32 = 0x1000;
    const MARKS: Marks = Marks { accept: A, decided: D, reject: R };
    const PLAIN: Protocol = Protocol { marks: MARKS, filter_reject: false, filter_return: false };

    /// A mark of others, with one of our bits that did not come from us.
    const FOREIGN: u32 = 0xca6c_0003;

    const DROP: Reply = Reply::DROP;
    const fn accept(mark: Option<u32>) -> Reply {
        Reply { verdict: KernelVerdict::Accept, mark }
    }
    const fn repeat(mark: u32) -> Reply {
        Reply { verdict: KernelVerdict::Repeat, mark: Some(mark) }
    }

    #[test]
    fn masks_name_three_bits() {
        assert_eq!(Marks::from_mask(0x1500), Some(MARKS));
        assert_eq!(Marks::from_mask(0x8000_0003), Some(Marks { accept: 1, decided: 2, reject: 1 << 31 }));
        assert_eq!(MARKS.mask(), 0x1500);
        for mask in [0, 0x100, 0x500, 0x3500, u32::MAX] {
            assert_eq!(Marks::from_mask(mask), None, "{mask:#x}");
        }
    }

    /// Hook, verdict, A as the hook leaves it; replies to a packet without mark: plainly, with
    /// `FilterDenyAction` Reject and `FilterAllowAction` Return, and the latter two without REPEAT.
    #[test]
    fn every_verdict_of_every_hook() {
        use Hook::{
            FilterForward, FilterInput, FilterOutput, ManglePostrouting, ManglePrerouting, RawOutput,
            RawPrerouting,
        };
        use Verdict::{Allow, AllowNotrack, AllowSkipHep, Continue, Deny};
        let none = accept(None);
        let other = Protocol { marks: MARKS, filter_reject: true, filter_return: true };
        #[rustfmt::skip]
        let table = [
            (RawPrerouting,     Deny,         false, DROP,          DROP,          DROP),
            (RawPrerouting,     AllowNotrack, true,  repeat(D | A), repeat(D | A), none),
            (RawPrerouting,     Continue,     false, repeat(D),     repeat(D),     none),
            (RawOutput,         Deny,         false, DROP,          DROP,          DROP),
            (RawOutput,         AllowNotrack, true,  repeat(D | A), repeat(D | A), none),
            (RawOutput,         Continue,     false, repeat(D),     repeat(D),     none),
            (ManglePrerouting,  Deny,         false, DROP,          DROP,          DROP),
            (ManglePrerouting,  AllowSkipHep, true,  repeat(D | A), repeat(D | A), accept(Some(A))),
            (ManglePrerouting,  Continue,     false, repeat(D),     repeat(D),     none),
            (FilterInput,       Deny,         false, DROP,          repeat(D | R), DROP),
            (FilterInput,       Allow,        false, none,          repeat(D),     none),
            (FilterInput,       Continue,     false, repeat(D),     repeat(D),     none),
            (FilterForward,     Deny,         false, DROP,          repeat(D | R), DROP),
            (FilterForward,     Allow,        true,  repeat(D | A), repeat(D | A), accept(Some(A))),
            (FilterForward,     Allow,        false, none,          repeat(D),     none),
            (FilterForward,     Continue,     false, repeat(D),     repeat(D),     none),
            (FilterOutput,      Deny,         false, DROP,          repeat(D | R), DROP),
            (FilterOutput,      Allow,        false, none,          repeat(D),     none),
            (FilterOutput,      Continue,     false, repeat(D),     repeat(D),     none),
            (ManglePostrouting, Deny,         false, DROP,          DROP,          DROP),
            (ManglePostrouting, Continue,     false, repeat(D),     repeat(D),     none),
        ];
        for (hook, verdict, accepted, plain, otherwise, without_repeat) in table {
            let place = format!("{} {verdict}", hook.name());
            assert_eq!(PLAIN.reply(hook, verdict, accepted, true, 0), plain, "{place}");
            assert_eq!(other.reply(hook, verdict, accepted, true, 0), otherwise, "{place}, other actions");
            assert_eq!(other.reply(hook, verdict, accepted, false, 0), without_repeat, "{place}, no repeat");
            assert_eq!(PLAIN.reply(hook, verdict, accepted, false, 0), without_repeat, "{place}, no repeat");
        }
    }

    #[test]
    fn bits_of_others_are_kept_and_ours_are_written() {
        let foreign = |verdict, accepted, arrival| {
            PLAIN.reply(Hook::RawPrerouting, verdict, accepted, true, FOREIGN | arrival)
        };
        assert_eq!(foreign(Verdict::AllowNotrack, true, R), repeat(FOREIGN | D | A));
        assert_eq!(foreign(Verdict::Continue, false, A | R), repeat(FOREIGN | D));
        // nothing changes: no mark is sent
        assert_eq!(PLAIN.reply(Hook::FilterInput, Verdict::Allow, false, true, FOREIGN), accept(None));
        assert_eq!(PLAIN.reply(Hook::FilterInput, Verdict::Allow, true, true, FOREIGN | A), accept(None));
        let cleared = PLAIN.reply(Hook::FilterInput, Verdict::Allow, false, true, FOREIGN | A);
        assert_eq!(cleared, accept(Some(FOREIGN)));
        assert_eq!(PLAIN.reply(Hook::FilterInput, Verdict::Deny, false, true, FOREIGN), DROP);
    }

    #[test]
    fn decided_packets_do_not_go_round() {
        assert_eq!(PLAIN.stop_loop(FOREIGN | D), accept(Some(FOREIGN)));
        assert_eq!(PLAIN.stop_loop(FOREIGN | D | A), accept(Some(FOREIGN | A)));
        assert_eq!(PLAIN.stop_loop(FOREIGN | D | R), DROP);
    }

    #[test]
    fn unread_packets_pass_as_their_hook_lets_pass() {
        let pass = |hook, arrival| PLAIN.pass_unread(hook, true, arrival);
        assert_eq!(pass(Hook::RawPrerouting, FOREIGN | A), repeat(FOREIGN | D));
        assert_eq!(pass(Hook::RawOutput, 0), repeat(D));
        assert_eq!(pass(Hook::ManglePrerouting, A), repeat(D | A));
        assert_eq!(pass(Hook::FilterInput, A), accept(None));
        assert_eq!(pass(Hook::FilterForward, 0), accept(None));
        assert_eq!(pass(Hook::FilterForward, A), repeat(D | A));
        assert_eq!(pass(Hook::FilterOutput, 0), accept(None));
        assert_eq!(pass(Hook::ManglePostrouting, 0), repeat(D));
    }
}
