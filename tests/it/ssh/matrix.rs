//! Every script of `cases/`, several at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::site::{Run, Site};

/// Scripts that run at once.
const WORKERS: usize = 4;

/// A script, with what it needs that not every place has.
struct Case {
    name: String,
    script: PathBuf,
    needs: Vec<String>,
}

impl Case {
    fn read(script: PathBuf) -> Self {
        let text = fs::read_to_string(&script).unwrap_or_else(|error| panic!("read {}: {error}", script.display()));
        let needs = text.lines().filter_map(|line| line.strip_prefix("# needs: "));
        let needs = needs.flat_map(|words| words.split(' ')).map(str::to_owned).collect();
        let name = script.file_stem().expect("a file").to_string_lossy().into_owned();
        Self { name, script, needs }
    }
}

/// All of them, by name; `EDD_SSH_CASES` (a part of the name) leaves others out, for who writes one.
fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/ssh/cases");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("list {}: {error}", folder.display()));
    let mut cases: Vec<_> = entries.map(|entry| Case::read(entry.expect("a readable folder").path())).collect();
    let wanted = std::env::var("EDD_SSH_CASES").unwrap_or_default();
    cases.retain(|case| case.name.contains(&wanted));
    // Those that take long begin first.
    cases.sort_by_key(|case| (!["ansible", "rekey"].contains(&case.name.as_str()), case.name.clone()));
    cases
}

/// Runs every case for which `site` has what it needs, and fails with all that fail.
pub async fn run(site: Site) {
    let site = Arc::new(site);
    let (skipped, mut cases): (Vec<_>, Vec<_>) =
        all().into_iter().partition(|case| case.needs.iter().any(|need| !site.offers.contains(&need.as_str())));
    assert!(!cases.is_empty(), "no case runs");
    eprintln!("left out here: {}", skipped.iter().map(|case| format!("{} ", case.name)).collect::<String>());
    cases.reverse();
    let (queue, failed) = (Arc::new(Mutex::new(cases)), Arc::new(Mutex::new(Vec::new())));
    let workers = (0..WORKERS).map(|_| {
        let (site, queue, failed) = (Arc::clone(&site), Arc::clone(&queue), Arc::clone(&failed));
        tokio::task::spawn_blocking(move || {
            let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
            while let Some(case) = next() {
                let began = Instant::now();
                let outcome = site.run(&case.name, &case.script);
                let word = match &outcome {
                    Ok(Run::Done) => "true",
                    Ok(Run::Skipped(why)) => why,
                    Err(_) => "false",
                };
                eprintln!("{:6.2} s  {}  {word}", began.elapsed().as_secs_f64(), case.name);
                if let Err(told) = outcome {
                    failed.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{}: {told}", case.name));
                }
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("a worker ends well");
    }
    let failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}
