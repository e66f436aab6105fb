//! The memory of the program: dlmalloc without its lock, for a program of which one thread allocates.
//!
//! Used by parent and child alike. musl's own allocator asks the kernel for each size of object, and gives back what is
//! free at once: most system calls of a short command would be its, and the page faults after them.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;

use dlmalloc::Dlmalloc;

pub struct Allocator(UnsafeCell<Dlmalloc>);

// SAFETY: there is one thread (clone3 is called without CLONE_VM) but for the courier's, which calls nothing but the kernel, and no signal
// handler.
unsafe impl Sync for Allocator {}

impl Allocator {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Allocator(UnsafeCell::new(Dlmalloc::new()))
    }
}

// SAFETY: what each function promises is dlmalloc's promise. None of them is entered while another runs.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.0.get()).malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { (*self.0.get()).calloc(layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above; the memory and its layout are of an earlier call.
        unsafe { (*self.0.get()).realloc(memory, layout.size(), layout.align(), size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above; the memory and its layout are of an earlier call.
        unsafe { (*self.0.get()).free(memory, layout.size(), layout.align()) }
    }
}
