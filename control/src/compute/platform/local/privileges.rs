//! What root in a container may do.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

use super::tier::Tier;

/// What daemons and package managers need of root within their own files. Not among them: whatever reaches devices, the
/// network's set-up or the machine.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::AUDIT_WRITE);

/// Gives up, for this process and all that it starts, what a container must not have.
pub(super) fn give_up(tier: Tier) -> io::Result<()> {
    if tier == Tier::Plain {
        // A child process has what edd has, but nothing more by any program.
        return Ok(rustix::thread::set_no_new_privs(true)?);
    }
    // The highest is the kernel's to tell; one that it does not know cannot be asked about.
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) if !KEPT.contains(capability) => rustix::thread::remove_capability_from_bounding_set(capability)?,
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let own = rustix::thread::capabilities(None)?;
    let kept = own.permitted & KEPT;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}
