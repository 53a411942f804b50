//! A peer in a process of its own: it builds from the same rules, and takes its turn when asked.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use labelgate::table::tree::DIMENSIONS;
use labelgate::workload::five_tuples::Rule;

/// A running peer.
pub struct Peer {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    folder: PathBuf,
    pub build_seconds: f64,
    pub kilobytes: f64,
}

impl Peer {
    /// Hands rules and packets over; `None`, with a message, if the peer is not there or fails.
    pub fn start(
        program: &Path,
        rules: &[Rule],
        packets: &[[u32; DIMENSIONS]],
        expected: &[u32],
    ) -> Option<Self> {
        Self::try_start(program, rules, packets, expected)
            .inspect_err(|error| eprintln!("{}: no peer: {error}", program.display()))
            .ok()
    }

    fn try_start(
        program: &Path,
        rules: &[Rule],
        packets: &[[u32; DIMENSIONS]],
        expected: &[u32],
    ) -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("labelgate-bench-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let (list, trace) = (folder.join("rules"), folder.join("trace"));
        write(&list, rules.len(), rules.iter().flat_map(ends))?;
        let rows =
            packets.iter().zip(expected).flat_map(|(packet, &rule)| packet.iter().copied().chain([rule]));
        write(&trace, packets.len(), rows)?;
        let mut process =
            Command::new(program).args([list, trace]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take().expect("piped");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let mut peer = Self { process, input, output, folder, build_seconds: 0.0, kilobytes: 0.0 };
        let numbers = peer.numbers().ok_or_else(|| io::Error::other("it did not build"))?;
        (peer.build_seconds, peer.kilobytes) = (numbers[0], numbers[1] / 1024.0);
        Ok(peer)
    }

    /// Nanoseconds a packet, one at a time and in batches.
    pub fn round(&mut self) -> Option<(f64, f64)> {
        self.input.write_all(b"\n").ok()?;
        let numbers = self.numbers()?;
        assert!(numbers[2] < 1.0, "answers of the peer that differ from the linear scan's");
        Some((numbers[0], numbers[1]))
    }

    /// The next line of the peer, if it holds three numbers or two.
    fn numbers(&mut self) -> Option<Vec<f64>> {
        let mut line = String::new();
        self.output.read_line(&mut line).ok()?;
        let numbers: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        (numbers.len() >= 2).then_some(numbers)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends with its input; whatever it says, it is not waited for longer than a kill takes.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn ends(rule: &Rule) -> impl Iterator<Item = u32> {
    rule.low.into_iter().zip(rule.high).flat_map(|(low, high)| [low, high])
}

/// A file of little-endian `u32`: the count of rows, then the rows.
fn write(path: &Path, rows: usize, words: impl Iterator<Item = u32>) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&u32::try_from(rows).map_err(io::Error::other)?.to_le_bytes())?;
    for word in words {
        file.write_all(&word.to_le_bytes())?;
    }
    file.flush()
}
