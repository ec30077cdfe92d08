//! How far the ends of channels may be ahead of who takes what they send.
//!
//! A channel begins with little and gets more as long as the other end keeps up, so that one far away is not slowed down
//! by waiting for leave, and thousands that stand still do not hold the memory of thousands that move.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a channel begins with, in bytes; every channel has it.
pub const FIRST_BYTES: u32 = 64 * 1024;
/// What it may come to; what OpenSSH has.
pub const MOST_BYTES: u32 = 2 * 1024 * 1024;
/// What all channels together may have besides what they begin with.
const SHARED_BYTES: usize = 1024 * 1024 * 1024;
/// This part of a window is taken before its end is told, so that not every piece costs a packet.
const TOLD_PART: u32 = 4;

/// What all channels share.
#[derive(Clone, Debug)]
pub struct Windows(Arc<Semaphore>);

/// One direction of a channel.
#[derive(Debug)]
pub struct Window {
    windows: Windows,
    bytes: u32,
    untold_bytes: u32,
    /// Given back with the channel.
    held: Vec<OwnedSemaphorePermit>,
}

impl Default for Windows {
    fn default() -> Self {
        Self::of(SHARED_BYTES)
    }
}

impl Windows {
    fn of(shared_bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(shared_bytes / FIRST_BYTES as usize)))
    }

    pub fn window(&self) -> Window {
        Window { windows: self.clone(), bytes: FIRST_BYTES, untold_bytes: 0, held: Vec::new() }
    }
}

impl Window {
    /// So many bytes were taken, and whether nothing else waits. How many more the end may send; 0 is not worth telling.
    pub fn taken(&mut self, bytes: usize, keeps_up: bool) -> u32 {
        // No end sends more than its window.
        self.untold_bytes = self.untold_bytes.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        if self.untold_bytes < self.bytes / TOLD_PART {
            return 0;
        }
        let more = if keeps_up { self.grow() } else { 0 };
        std::mem::take(&mut self.untold_bytes) + more
    }

    /// Doubles, if that is allowed and there is enough for all. By how much it grew.
    fn grow(&mut self) -> u32 {
        let more = self.bytes.min(MOST_BYTES - self.bytes);
        if more == 0 {
            return 0;
        }
        match Arc::clone(&self.windows.0).try_acquire_many_owned(more / FIRST_BYTES) {
            Ok(permit) => {
                self.held.push(permit);
                self.bytes += more;
                more
            }
            Err(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes windows as they are sent, until nothing changes any more.
    fn grown(window: &mut Window, keeps_up: bool) -> u32 {
        let mut allowed = FIRST_BYTES;
        for _ in 0..20 {
            let given = window.taken(allowed as usize, keeps_up);
            assert!(given >= allowed, "what was taken is given back");
            allowed = given;
        }
        allowed
    }

    #[test]
    fn a_window_grows_with_who_keeps_up_and_not_with_who_does_not() {
        let windows = Windows::default();
        assert_eq!(grown(&mut windows.window(), true), MOST_BYTES);
        assert_eq!(grown(&mut windows.window(), false), FIRST_BYTES);
    }

    #[test]
    fn small_pieces_are_told_together() {
        let mut window = Windows::default().window();
        let told: Vec<u32> = (0..16).map(|_| window.taken(4096, false)).filter(|told| *told > 0).collect();
        assert_eq!(told, [FIRST_BYTES / TOLD_PART; 4]);
    }

    #[test]
    fn all_together_have_no_more_than_there_is_and_give_it_back() {
        let windows = Windows::of((MOST_BYTES - FIRST_BYTES) as usize);
        let mut first = windows.window();
        assert_eq!(grown(&mut first, true), MOST_BYTES);
        let mut second = windows.window();
        assert_eq!(grown(&mut second, true), FIRST_BYTES);
        drop(first);
        assert_eq!(grown(&mut second, true), MOST_BYTES);
    }
}
