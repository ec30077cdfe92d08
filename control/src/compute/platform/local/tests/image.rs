//! Images of tarballs, small ones that are made of this machine's shell.

use std::fs;
use std::process::Command;

use super::isolation::{on_tiers, run, started};
use super::*;
use crate::compute::platform::Exit;

on_tiers! {
    an_image_has_its_own_files_alone: Root, User;
    an_image_that_cannot_run_says_why: Root, User;
    an_image_cannot_lead_out_of_itself: Root, User;
}

fn spec(image: &str) -> Spec {
    Spec {
        id: ContainerId::random(&mut rand::rng()),
        owner: edd_proto::UserId::random(&mut rand::rng()),
        name: image.to_owned(),
        image: image.to_owned(),
        pull: Default::default(),
        memory_mb: 64,
        cpu_millis: 1000,
        storage_gb: 1,
        mount_paths: vec!["/data".to_owned()],
        environment: BTreeMap::new(),
    }
}

/// Writes an image with `sh`, `sleep` and what they are linked to, and with links of its own.
fn write(here: &Here, name: &str, manifest: &str, links: &[(&str, &Path)]) {
    let images = here.folder.path().join("images");
    fs::create_dir_all(&images).expect("a folder");
    let file = fs::File::create(images.join(format!("{name}.tar"))).expect("a file");
    let mut builder = tar::Builder::new(file);
    let mut add = |path: &Path| {
        let place = path.strip_prefix("/").expect("absolute");
        builder.append_path_with_name(path.canonicalize().expect("there"), place).expect("added");
    };
    for program in ["/bin/sh", "/bin/sleep"].map(Path::new) {
        add(program);
        let linked = Command::new("ldd").arg(program).output().expect("ldd").stdout;
        let linked = String::from_utf8(linked).expect("text");
        linked.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new).for_each(&mut add);
    }
    for (link, target) in links {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        builder.append_link(&mut header, link, target).expect("added");
    }
    builder.finish().expect("written");
    fs::write(images.join(format!("{name}.json")), manifest).expect("written");
}

async fn end(here: &Here, local: &Local, id: ContainerId) {
    local.delete(id).await.expect("deleted");
    assert_eq!(here.leftovers(id), Vec::<String>::new());
    local.shutdown(Duration::from_secs(5)).await;
}

async fn an_image_has_its_own_files_alone(here: &Here) {
    write(here, "tiny", r#"{"description": "A shell", "environment": {"FROM": "image"}}"#, &[]);
    let local = here.local().await;
    let spec = spec("tiny");
    let observed = started(&local, &spec).await;
    assert_eq!(observed.phase, Phase::Running);
    let (exit, said) = run(&local, spec.id, "echo /*; echo $FROM; echo x > /data/kept; pwd").await;
    assert_eq!(exit, Exit::Code(0), "{said}");
    assert_eq!(said.lines().skip(1).collect::<Vec<_>>(), ["image", "/"]);
    assert!(said.contains("/bin /data /dev") && !said.contains("/home") && !said.contains("/usr/share"), "{said}");
    end(here, &local, spec.id).await;
}

async fn an_image_that_cannot_run_says_why(here: &Here) {
    write(here, "ends", r#"{"entry": ["/bin/sh", "-c", "echo about to end; exit 3"]}"#, &[]);
    write(here, "absent", r#"{"entry": ["/no/such/entry"]}"#, &[]);
    write(here, "silent", r#"{"entry": ["/bin/sh", "-c", "sleep 1000"], "http_port": 3000}"#, &[]);
    let config = Config { ready_timeout: Duration::from_millis(500), ..here.config() };
    let local = Local::start(config).await.expect("a platform");
    for (image, why) in [
        ("ends", "its main process ended by itself with code 3"),
        ("absent", "cannot run /no/such/entry"),
        ("silent", "it did not answer on port"),
    ] {
        let spec = spec(image);
        let observed = started(&local, &spec).await;
        assert!(matches!(&observed.phase, Phase::Failed(reason) if reason.contains(why)), "{image}: {observed:?}");
        assert_eq!((observed.address, local.observe(spec.id).await), (None, Ok(Some(observed))));
        assert_eq!(here.leftovers(spec.id), Vec::<String>::new());
        if image == "ends" {
            let mut log = local.logs(spec.id, LogQuery { tail: 1, follow: true }).await.expect("a log");
            assert_eq!((log.recv().await, log.recv().await), (Some(Bytes::from("about to end")), None));
        }
        local.delete(spec.id).await.expect("deleted");
    }
    local.shutdown(Duration::ZERO).await;
}

async fn an_image_cannot_lead_out_of_itself(here: &Here) {
    let outside = here.folder.path().join("outside");
    fs::create_dir(&outside).expect("made");
    for place in ["data", "dev", "proc", "etc"] {
        let name = format!("evil-{place}");
        write(here, &name, "{}", &[(place, &outside)]);
        let local = here.local().await;
        let spec = Spec { mount_paths: vec!["/data/inner".to_owned()], ..spec(&name) };
        // It may run or not.
        started(&local, &spec).await;
        assert_eq!(fs::read_dir(&outside).expect("a folder").count(), 0, "something was made outside, by {place}");
        end(here, &local, spec.id).await;
    }
}
