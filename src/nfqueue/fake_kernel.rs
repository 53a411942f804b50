//! The kernel's side of the protocol, by hand, for tests.

/// Bytes from hexadecimal text; blanks are ignored.
pub fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    assert_eq!(digits.len() % 2, 0, "whole bytes");
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

/// A queued packet: struct `nlmsghdr`, struct `nfgenmsg`, then the attributes packet header, in-interface,
/// out-interface, mark (zeros are left out, as the kernel does) and payload.
pub fn packet(id: u32, mark: u32, interfaces: (u32, u32), payload: &[u8]) -> Vec<u8> {
    let mut message = bytes("00000000 00030000 00000000 00000000 0200106e");
    message.extend_from_slice(&bytes(&format!("0b000100 {id:08x} 08000300")));
    for (number, value) in [(5, interfaces.0), (6, interfaces.1), (3, mark)] {
        if value != 0 {
            message.extend_from_slice(&bytes(&format!("0800{number:02x}00 {value:08x}")));
        }
    }
    let length = u16::try_from(4 + payload.len()).unwrap().to_le_bytes();
    message.extend_from_slice(&[length[0], length[1], 10, 0]);
    message.extend_from_slice(payload);
    let length = u32::try_from(message.len()).unwrap();
    message[..4].copy_from_slice(&length.to_le_bytes());
    message
}

/// What the kernel must be sent for one packet (`VERDICT`), or for all up to one (`VERDICT_BATCH`): struct
/// `nfqnl_msg_verdict_hdr`, then the mark.
pub fn reply(queue: u16, is_batch: bool, verdict: u8, id: u32, mark: Option<u32>) -> Vec<u8> {
    let (length, kind) = (if mark.is_some() { 40 } else { 32 }, if is_batch { 3 } else { 1 });
    let mut message = bytes(&format!(
        "{length:02x}000000 {kind:02x}030100 00000000 00000000 0000{queue:04x}
         0c000200 {verdict:08x} {id:08x}"
    ));
    if let Some(mark) = mark {
        message.extend_from_slice(&bytes(&format!("08000300 {mark:08x}")));
    }
    message
}

/// Packets that wait for their verdicts.
#[derive(Debug, Default)]
pub struct Waiting {
    /// In the order of the queue.
    pub ids: Vec<u32>,
    /// Id, verdict and mark of those that wait no more, in the order in which they were let go.
    pub answered: Vec<(u32, u8, Option<u32>)>,
    /// How many messages there were.
    pub messages: usize,
}

impl Waiting {
    /// Does what messages such as [`reply`] say: a verdict lets its packet go, a batch verdict all up to its id.
    pub fn take(&mut self, mut sent: &[u8]) {
        let word = |bytes: &[u8]| u32::from_be_bytes(*bytes.first_chunk().unwrap());
        while !sent.is_empty() {
            let (message, rest) = sent.split_at(usize::from(sent[0]));
            let (is_batch, verdict, id) = (message[4] == 3, message[27], word(&message[28..]));
            let mark = message.get(36..).filter(|mark| !mark.is_empty()).map(word);
            let is_meant = |waiting: u32| {
                if is_batch { id.wrapping_sub(waiting).cast_signed() >= 0 } else { waiting == id }
            };
            let (meant, others): (Vec<_>, Vec<_>) = self.ids.iter().partition(|&&waiting| is_meant(waiting));
            assert!(!meant.is_empty(), "ENOENT: no packet waits for the verdict on {id}");
            self.answered.extend(meant.into_iter().map(|id| (id, verdict, mark)));
            self.ids = others;
            self.messages += 1;
            sent = rest;
        }
    }
}
