//! The memory of the program: dlmalloc without its lock. Only the first thread may use it.
//!
//! Used by parent and child alike. musl's own allocator asks the kernel for each size of object, and returns free memory at
//! once. Those calls, and the page faults after them, would be most of a short command.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::process::abort;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use dlmalloc::Dlmalloc;

thread_local! {
    /// Has another address in each thread.
    static MARK: u8 = const { 0 };
}

pub struct Allocator {
    heap: UnsafeCell<Dlmalloc>,
    /// The address of [`MARK`] in the thread that uses the heap; 0 before the first use. A child of clone3(2) keeps the value.
    owner: AtomicUsize,
}

// SAFETY: `heap` lets one thread in, and there is no signal handler that could interrupt it.
unsafe impl Sync for Allocator {}

impl Allocator {
    // A static needs a const function, which Default has not.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Allocator {
            heap: UnsafeCell::new(Dlmalloc::new()),
            owner: AtomicUsize::new(0),
        }
    }

    /// Returns the heap. Aborts the program in any thread but the first that asks.
    fn heap(&self) -> *mut Dlmalloc {
        let thread = MARK.with(|mark| ptr::from_ref(mark).addr());
        if self.owner.load(Ordering::Relaxed) != thread {
            let first =
                self.owner
                    .compare_exchange(0, thread, Ordering::Relaxed, Ordering::Relaxed);
            if first.is_err() {
                abort();
            }
        }
        self.heap.get()
    }
}

// SAFETY: what each function promises is dlmalloc's promise. `heap` lets no thread in while another one is in them.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.heap()).malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.heap()).calloc(layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; the memory and its layout are of an earlier call.
        unsafe { (*self.heap()).realloc(memory, layout.size(), layout.align(), size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; the memory and its layout are of an earlier call.
        unsafe { (*self.heap()).free(memory, layout.size(), layout.align()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_thread_may_use_the_heap() {
        let allocator = Allocator::new();
        assert_eq!(allocator.heap(), allocator.heap());
        let owner = allocator.owner.load(Ordering::Relaxed);
        let other = std::thread::spawn(|| MARK.with(|mark| ptr::from_ref(mark).addr()));
        assert_ne!(other.join().unwrap_or_default(), owner);
    }
}
