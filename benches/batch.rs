//! The Rust figure for `boundary.py`: answers columns from files, once for each line of standard input.
//!
//! `batch FOLDER HOOK`: the folder holds `model.json`, `host.json` and one file of native numbers for each column;
//! each answer is one line: nanoseconds per flow, the sum of verdicts, the sum of outcome ids.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use std::{env, fs, io};

use bytemuck::Pod;
use labelgate::compile::compile;
use labelgate::flow::Hook;
use labelgate::table::{Addresses, Budgets, Column, DecisionTable, Engines, Flows};

fn column<T: Pod>(folder: &Path, name: &str) -> Vec<T> {
    let bytes = fs::read(folder.join(name)).expect("the column is there");
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

fn table(folder: &Path) -> DecisionTable {
    let json = |name: &str| fs::read(folder.join(name)).expect("the file is there");
    let model = serde_json::from_slice(&json("model.json")).expect("a model");
    let program = compile(&model, Some("edge1")).expect("a valid model");
    let engines = Engines::build(Arc::new(program), &Budgets::default());
    DecisionTable::new(Arc::new(engines), &serde_json::from_slice(&json("host.json")).expect("a host"))
}

fn main() {
    // `cargo bench` adds `--bench`.
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [folder, hook] = &arguments[..] else {
        eprintln!("usage: batch FOLDER HOOK (see boundary.py, which runs this)");
        return;
    };
    let folder = PathBuf::from(folder);
    let table = table(&folder);
    let (source, destination) = (column(&folder, "src"), column(&folder, "dst"));
    let (source_port, destination_port) = (column(&folder, "sport"), column(&folder, "dport"));
    let (protocol, input, output) =
        (column(&folder, "protocol"), column(&folder, "in_"), column(&folder, "out"));
    let addresses = Addresses::V4 { source: Column::Each(&source), destination: Column::Each(&destination) };
    let flows = Flows {
        protocol: Column::Each(&protocol),
        source_port: Column::Each(&source_port),
        destination_port: Column::Each(&destination_port),
        input: Column::Each(&input),
        output: Column::Each(&output),
        ..Flows::new(Hook::from_name(hook).expect("a hook"), addresses)
    };
    let (mut verdicts, mut outcomes) = (vec![0; source.len()], vec![0; source.len()]);
    for _ in io::stdin().lock().lines() {
        let began = Instant::now();
        table.decide_batch(&flows, &mut verdicts, &mut outcomes).expect("columns fit");
        #[allow(clippy::cast_precision_loss)] // For people.
        let each = began.elapsed().as_nanos() as f64 / source.len() as f64;
        let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.sum::<u64>();
        let verdicts = sum(&mut verdicts.iter().map(|&verdict| verdict.into()));
        let outcomes = sum(&mut outcomes.iter().map(|&outcome: &u32| outcome.into()));
        println!("{each} {verdicts} {outcomes}");
    }
}
