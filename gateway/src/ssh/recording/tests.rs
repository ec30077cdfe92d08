use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use edd_events::clock::ManualClock;

use super::*;

const SIZE: TerminalSize = TerminalSize { columns: 80, rows: 24 };

struct Scene {
    dir: tempfile::TempDir,
    recorder: Recorder,
    clock: ManualClock,
    lost: IntCounter,
}

fn container(text: &str) -> ContainerId {
    text.parse().unwrap()
}

fn scene(recorded: Recorded) -> Scene {
    scene_with(recorded, MAX_FILE_BYTES)
}

fn scene_with(recorded: Recorded, max_file_bytes: u64) -> Scene {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(1_705_924_000_000_000));
    let lost = IntCounter::new("lost", "lost").unwrap();
    let tapes = dir.path().join("tapes");
    let config = Config { dir: tapes, recorded, max_file_bytes, clock: Arc::new(clock.clone()), lost: lost.clone() };
    Scene { recorder: Recorder::start(config).unwrap(), dir, clock, lost }
}

impl Scene {
    fn begin(&self, id: &str) -> Option<Recording> {
        self.recorder.begin(container(id), Uuid::from_u128(7), SIZE, &Begun::Shell)
    }

    fn files(&self) -> Vec<PathBuf> {
        let containers = std::fs::read_dir(self.dir.path().join("tapes")).unwrap();
        let files = containers.flat_map(|dir| std::fs::read_dir(dir.unwrap().path()).unwrap());
        files.map(|file| file.unwrap().path()).collect()
    }

    /// Waits until all recordings are closed.
    fn wait(&self) {
        let queue = &self.recorder.0.queue;
        let since = std::time::Instant::now();
        while queue.open.load(Ordering::Relaxed) > 0 {
            assert!(since.elapsed() < Duration::from_secs(20), "the writer does not come to an end");
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_terminal_is_written_as_it_was_and_for_nobody_else() {
    let scene = scene(Recorded::All);
    let recording = scene.begin("abcdefghij").unwrap();
    scene.clock.advance(Duration::from_millis(250));
    recording.output("prompt€".as_bytes().split_at(8).0);
    recording.output("prompt€".as_bytes().split_at(8).1);
    scene.clock.advance(Duration::from_secs(1));
    recording.resized(TerminalSize { columns: 100, rows: 30 });
    recording.output(b"\xff");
    drop(recording);
    scene.wait();
    let files = scene.files();
    let [file] = files.as_slice() else { panic!("one file: {files:?}") };
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(file.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.lines().skip(1).collect();
    let expected =
        ["[0.25,\"o\",\"prompt\"]", "[0.25,\"o\",\"€\"]", "[1.25,\"r\",\"100x30\"]", "[1.25,\"o\",\"\u{fffd}\"]"];
    assert_eq!(lines, expected);
    assert!(text.starts_with("{\"version\":2,\"width\":80,\"height\":24,\"timestamp\":1705924000,"), "{text}");
}

#[test]
fn other_containers_are_not_recorded() {
    let scene = scene(Recorded::Containers([container("abcdefghij")].into()));
    assert!(scene.begin("bbcdefghij").is_none());
    drop(scene.begin("abcdefghij").unwrap());
    scene.wait();
    assert_eq!(scene.files().len(), 1);
}

#[test]
fn a_disk_that_is_stuck_costs_output_and_the_file_says_so() {
    let scene = scene(Recorded::All);
    let recording = scene.begin("abcdefghij").unwrap();
    let piece = vec![b'x'; 32 * 1024];
    {
        // Whoever holds this is the disk.
        let _stuck = recording.tape.reel();
        let since = std::time::Instant::now();
        (0..2000).for_each(|_| recording.output(&piece));
        assert!(since.elapsed() < Duration::from_secs(10), "nobody waits");
        let waiting = scene.recorder.0.queue.waiting().bytes;
        assert!(waiting <= MAX_WAITING_BYTES + PIECE_BYTES, "{waiting} bytes wait");
    }
    let lost = scene.lost.get();
    assert!(lost > 40_000_000, "{lost} bytes were left out");
    drop(recording);
    scene.wait();
    let text = std::fs::read_to_string(&scene.files()[0]).unwrap();
    assert!(text.contains(&format!("\"m\",\"{lost} bytes are missing: the disk was too slow\"")));
    assert!(text.len() as u64 > 60_000_000 - lost, "what was not lost is there");
}

#[test]
fn a_file_has_an_end_and_says_so() {
    let scene = scene_with(Recorded::All, 1000);
    let recording = scene.begin("abcdefghij").unwrap();
    (0..100).for_each(|_| recording.output(&[b'x'; 100]));
    drop(recording);
    scene.wait();
    let text = std::fs::read_to_string(&scene.files()[0]).unwrap();
    assert!(text.ends_with("\"m\",\"the rest is missing: a recording has at most 1000 bytes\"]\n"), "{text}");
    assert!((800..1200).contains(&text.len()), "{} bytes", text.len());
}

#[test]
fn a_file_that_cannot_be_written_ends_the_recording_and_nothing_else() {
    let scene = scene(Recorded::All);
    std::fs::write(scene.dir.path().join("tapes/abcdefghij"), "in the way").unwrap();
    let recording = scene.begin("abcdefghij").unwrap();
    recording.output(b"x");
    drop(recording);
    let other = scene.begin("bbcdefghij").unwrap();
    other.output(b"y");
    drop(other);
    scene.wait();
    let text = std::fs::read_to_string(
        scene.dir.path().join("tapes/bbcdefghij").read_dir().unwrap().next().unwrap().unwrap().path(),
    )
    .unwrap();
    assert!(text.ends_with("[0.0,\"o\",\"y\"]\n"), "{text}");
}

#[test]
fn too_many_are_not_recorded_and_the_thread_ends_with_its_handles() {
    let scene = scene(Recorded::All);
    let recordings: Vec<_> = (0..MAX_RECORDINGS).map(|_| scene.begin("abcdefghij").unwrap()).collect();
    assert!(scene.begin("abcdefghij").is_none());
    drop(recordings);
    scene.wait();
    assert!(scene.begin("abcdefghij").is_some());
    scene.wait();
    let queue = Arc::downgrade(&scene.recorder.0.queue);
    drop(scene);
    let since = std::time::Instant::now();
    while queue.strong_count() > 0 {
        assert!(since.elapsed() < Duration::from_secs(20), "the thread goes on");
        std::thread::yield_now();
    }
}
