//! How long rule sets take to become a table, and how that grows with their size.
//!
//! ```text
//! cargo bench --bench rule_sets -- [--sets acl,fw,ipc] [--sizes 1k,10k,100k] [--rounds N] [--seed N]
//! ```
//!
//! Per workload of `labelgate bench match`: medians over the rounds of compile, build, and both, in milliseconds of the
//! processor (of all threads); and how many times as long as the size before it took, beside how many times n log n has
//! grown. Rounds go over all workloads in turn.

#![expect(clippy::cast_precision_loss, reason = "times and counts for people")]

use std::hint::black_box;
use std::sync::Arc;

use cpu_time::ProcessTime;
use labelgate::compile::compile;
use labelgate::table::{Budgets, Engines};
use labelgate::workload::{Named, Workload};

fn main() {
    let option = |name: &str| {
        let mut arguments = std::env::args().skip_while(move |argument| argument != name);
        arguments.nth(1)
    };
    let list = |name: &str, otherwise: &str| -> Vec<String> {
        option(name).as_deref().unwrap_or(otherwise).split(',').map(str::to_owned).collect()
    };
    let number = |name: &str, otherwise: u64| {
        option(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} {text}")))
    };
    let (rounds, seed) = (number("--rounds", 9), number("--seed", 1));
    let sizes = list("--sizes", "1k,10k,100k");
    let sets = list("--sets", "acl,fw,ipc");
    let names = sets.iter().flat_map(|set| sizes.iter().map(move |size| format!("{set}-{size}")));
    let mut rows: Vec<_> = names.map(|name| Row::new(name, seed)).collect();
    for _ in 0..rounds {
        rows.iter_mut().for_each(Row::round);
    }
    println!(
        "{:<10} {:>8} {:>9} {:>9} {:>9} {:>7} {:>8}",
        "set", "rules", "compile", "build", "both", "grown", "n log n"
    );
    for (index, row) in rows.iter().enumerate() {
        let [compiling, building, both] = row.times.each_ref().map(|times| median(times));
        print!("{:<10} {:>8} {compiling:>9.1} {building:>9.1} {both:>9.1}", row.name, row.rules);
        match index.checked_sub(1).map(|before| &rows[before]).filter(|before| before.rules < row.rules) {
            Some(before) => println!(
                " {:>7.1} {:>8.1}",
                both / median(&before.times[2]),
                n_log_n(row.rules) / n_log_n(before.rules)
            ),
            None => println!(),
        }
    }
}

/// A workload and what it took so far: compile, build, both.
struct Row {
    name: String,
    workload: Workload,
    rules: usize,
    times: [Vec<f64>; 3],
}

impl Row {
    fn new(name: String, seed: u64) -> Self {
        let workload =
            Named::find(&name).unwrap_or_else(|| panic!("{name}: no such workload")).workload(seed);
        let rules =
            workload.model.policies.iter().map(|policy| policy.ingress.len() + policy.egress.len()).sum();
        Self { name, workload, rules, times: Default::default() }
    }

    fn round(&mut self) {
        let begun = ProcessTime::now();
        let compiled = compile(black_box(&self.workload.model), self.workload.node.as_deref());
        let program = Arc::new(compiled.expect("workloads compile"));
        let compiling = begun.elapsed().as_secs_f64() * 1e3;
        let begun = ProcessTime::now();
        let engines = black_box(Engines::build(program, &Budgets::default()));
        let building = begun.elapsed().as_secs_f64() * 1e3;
        for (times, time) in self.times.iter_mut().zip([compiling, building, compiling + building]) {
            times.push(time);
        }
        drop(engines);
    }
}

fn n_log_n(count: usize) -> f64 {
    count as f64 * (count as f64).log2()
}

fn median(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
