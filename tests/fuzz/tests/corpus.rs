//! The kept corpus through every target: what was found once stays mended.

use std::fs;
use std::path::Path;

use labelgate_fuzz::TARGETS;

#[test]
fn what_must_hold_holds_for_the_kept_corpus() {
    for (name, check) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).expect("every target has a corpus") {
            let path = entry.expect("a folder entry is readable").path();
            println!("{}", path.display()); // shown if it fails
            check(&fs::read(&path).expect("an input is readable"));
            inputs += 1;
        }
        assert!(inputs >= 10, "{}: {inputs} inputs", folder.display());
    }
}
