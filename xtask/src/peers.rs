//! `cargo xtask bench peers`: edd and its peers on the same work, side by side in one run.
//!
//! Every peer is alive the whole time; each round gives every workload to every peer, in rotating order; what counts is
//! the ratio within a round, and the median of those. The proxy has one core and one thread, the upstream and the load
//! generators have another.

mod cores;
mod exchange;
mod guardian;
mod load;
mod options;
mod peer;
mod report;
mod server;
mod site;
mod usage;
mod workload;

use std::fs;
use std::path::PathBuf;

use crate::cargo::Cargo;
use crate::failure::{Failure, run};
use crate::{install, tool};
use cores::Cores;
use guardian::Guardian;
use load::Load;
use options::Options;
use peer::Peer;
use report::{Entry, Memory, Report};
use server::Server;
use site::Site;

/// As many plain ones, then as many with TLS.
const IDLE_CONNECTIONS: u32 = 2_000;

/// A peer that is here, with its program.
type Contender = (Peer, PathBuf);

pub fn bench(args: &[String]) -> Result<(), Failure> {
    let Some(options) = Options::parse(args)? else {
        print!("{}", options::HELP);
        return Ok(());
    };
    install::ensure(tool::PEERS)?;
    let cores = Cores::of_this_machine()?;
    let nginx = Peer::Nginx.find().map_err(|_| {
        Failure::unavailable(
            "nginx is the upstream of this comparison and is missing; its package starts a server on port 80\n\
             run: sudo apt-get install nginx && sudo systemctl disable --now nginx",
        )
    })?;
    let cargo = Cargo::new(install::ensure(tool::BUILD)?)?;
    let contenders = contenders(&options, &cargo)?;
    let guardian = Guardian::new()?;
    let site = Site::new(guardian.folder())?;
    let _upstream = Server::start(&peer::upstream(&nginx, &site)?, "upstream", cores.rest, &guardian)?;
    let load = Load { site: &site, core: cores.rest, seconds: options.seconds };

    let mut report = Report {
        peers: contenders.iter().map(|(peer, _)| *peer).collect(),
        versions: contenders
            .iter()
            .filter(|(peer, _)| *peer != Peer::EddLogged)
            .map(|(peer, program)| peer.version(program))
            .collect(),
        entries: Vec::new(),
        memory: Vec::new(),
        idle_connections: IDLE_CONNECTIONS,
    };
    if options.memory {
        for (peer, program) in &contenders {
            eprintln!("bench: memory of {}", peer.title());
            let label = format!("{}-memory", peer.id());
            let server = Server::start(&peer.plan(program, &site, &label)?, &label, cores.proxy, &guardian)?;
            report.memory.push(Memory { peer: *peer, resident_bytes: memory(&server, &load)? });
        }
    }
    if !options.workloads.is_empty() {
        let mut servers = Vec::new();
        for (peer, program) in &contenders {
            let server = Server::start(&peer.plan(program, &site, peer.id())?, peer.id(), cores.proxy, &guardian)?;
            same_work(*peer, &server)?;
            servers.push((*peer, server));
        }
        report.entries = rounds(&options, &servers, &load)?;
    }
    print!("{}", report.markdown());
    save(&cargo, &report)
}

/// The peers that are asked for and here. One that is missing is named and left out; that edd cannot be built is a
/// failure.
fn contenders(options: &Options, cargo: &Cargo) -> Result<Vec<Contender>, Failure> {
    let edd = cargo.target().join("release/edd");
    if options.peers.iter().any(|peer| peer.is_edd()) {
        run(&mut cargo.command(&["build", "--release", "--locked", "--bin", "edd"]))?;
    }
    let mut found = Vec::new();
    for peer in options.peers.iter().copied() {
        match if peer.is_edd() { Ok(edd.clone()) } else { peer.find() } {
            Ok(program) => found.push((peer, program)),
            Err(reason) => eprintln!("bench: without {}: {reason}", peer.title()),
        }
    }
    if found.is_empty() { Err(Failure::unavailable("none of the peers is here")) } else { Ok(found) }
}

/// Refuses a peer that does less than the others: all say who the client is, and keep their upstream connections.
fn same_work(peer: Peer, server: &Server) -> Result<(), Failure> {
    let echo =
        || exchange::get(server.http, "/echo").map_err(|error| Failure::step(format!("{}: {error}", peer.title())));
    let (_, second) = (echo()?, echo()?);
    // envoy gives the machine's own address for a client on loopback, so any address will do.
    let silent = ["for= ", "proto= ", "host= "].into_iter().find(|empty| second.contains(empty));
    if silent.is_some() || !second.contains("proto=http host=localhost ") {
        return Err(Failure::step(format!("{} tells the upstream too little: {second}", peer.title())));
    }
    if second.trim_end().ends_with(" request=1") {
        return Err(Failure::step(format!("{} makes an upstream connection for every request", peer.title())));
    }
    Ok(())
}

/// Every workload, every peer, round after round; each round begins with another peer.
fn rounds(options: &Options, servers: &[(Peer, Server)], load: &Load) -> Result<Vec<Entry>, Failure> {
    let mut entries = Vec::new();
    for round in 0..options.rounds {
        eprintln!("bench: round {} of {}", round + 1, options.rounds);
        for workload in options.workloads.iter().copied() {
            let first = round as usize % servers.len();
            for (peer, server) in servers[first..].iter().chain(&servers[..first]) {
                let sample = workload
                    .measure(server, load)
                    .map_err(|failure| Failure::step(format!("{} {}: {failure}", peer.title(), workload.id())))?;
                entries.push(Entry { peer: *peer, round, sample });
            }
        }
    }
    Ok(entries)
}

/// Resident bytes of a server that has just started: idle, with plain connections, with TLS ones on top.
fn memory(server: &Server, load: &Load) -> Result<[u64; 3], Failure> {
    let idle = server.resident_bytes();
    let _plain = load.hold(server.http, false, IDLE_CONNECTIONS)?;
    let plain = server.resident_bytes();
    let _tls = load.hold(server.https, true, IDLE_CONNECTIONS)?;
    Ok([idle, plain, server.resident_bytes()])
}

fn save(cargo: &Cargo, report: &Report) -> Result<(), Failure> {
    let file = cargo.target().join("bench/peers.json");
    let folder = file.parent().unwrap_or(cargo.target());
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&file, report.json()))
        .map_err(|error| Failure::step(format!("{}: {error}", file.display())))?;
    eprintln!("bench: every run is in {}", file.display());
    Ok(())
}
