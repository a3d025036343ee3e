//! Memory for results: zeroed, or that of a result that is gone.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::RangeInclusive;
use std::ptr::NonNull;
use std::sync::Mutex;

/// Enough for every vector width, and for JAX, which copies what is aligned to less.
const ALIGN: usize = 64;
/// The size of a huge page, and of the smallest result that gets some.
#[cfg(target_os = "linux")]
const HUGE: usize = 2 << 20;

/// The sizes that are kept for later results; all together are at most as large as the largest, which is what glibc's
/// allocator keeps too. A fresh page costs more than most casts do: a fault, and zeros that the kernel overwrites.
const KEPT: RangeInclusive<usize> = 32 << 10..=32 << 20;

/// Memory of results that are gone, oldest first.
static SPARE: Mutex<Vec<Pages>> = Mutex::new(Vec::new());

/// Memory of its own.
pub struct Memory {
    data: NonNull<u8>,
    /// There until the drop.
    pages: Option<Pages>,
}

// SAFETY: `Memory` is the only owner of what `data` points to, its pages, which may go to any thread.
unsafe impl Send for Memory {}
// SAFETY: through a shared `Memory` this crate never reads or writes the elements, it only hands out the address.
unsafe impl Sync for Memory {}

impl Memory {
    /// Zero bytes; `None` where there is not so much memory.
    pub fn zeroed(bytes: usize) -> Option<Self> {
        Pages::zeroed(bytes).map(Self::new)
    }

    /// At least so many bytes, which are initialised but hold anything: for kernels that write every element.
    pub fn stale(bytes: usize) -> Option<Self> {
        // Never waits for the lock: a thread that held it when this process was forked is not there to open it.
        if KEPT.contains(&bytes)
            && let Ok(mut spare) = SPARE.try_lock()
            && let Some(at) = spare.iter().rposition(|pages| (bytes..=2 * bytes).contains(&pages.layout.size()))
        {
            return Some(Self::new(spare.remove(at)));
        }
        Self::zeroed(bytes)
    }

    fn new(pages: Pages) -> Self {
        Self { data: pages.data, pages: Some(pages) }
    }

    /// The first byte.
    pub fn data(&self) -> NonNull<u8> {
        self.data
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let Some(pages) = self.pages.take().filter(|pages| KEPT.contains(&pages.layout.size())) else { return };
        // What is too much is given back once the lock is open again.
        let mut oldest = Vec::new();
        if let Ok(mut spare) = SPARE.try_lock() {
            spare.push(pages);
            let mut kept: usize = spare.iter().map(|pages| pages.layout.size()).sum();
            while kept > *KEPT.end() {
                let pages = spare.remove(0);
                kept -= pages.layout.size();
                oldest.push(pages);
            }
        }
    }
}

/// An allocation.
struct Pages {
    data: NonNull<u8>,
    layout: Layout,
    /// The whole mapping, where the memory comes from the system and not from the allocator.
    #[cfg(target_os = "linux")]
    mapping: Option<(NonNull<libc::c_void>, usize)>,
}

// SAFETY: `Pages` is the only owner of its allocation, which any thread may write and free.
unsafe impl Send for Pages {}

impl Pages {
    fn zeroed(bytes: usize) -> Option<Self> {
        let layout = Layout::from_size_align(bytes.max(1), ALIGN).ok()?;
        #[cfg(target_os = "linux")]
        if bytes >= HUGE {
            return Self::mapped(layout);
        }
        // SAFETY: the layout has at least one byte.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self {
            data,
            layout,
            #[cfg(target_os = "linux")]
            mapping: None,
        })
    }

    /// Pages of the system are zero already, where the allocator would write zeros for the kernel to overwrite, and huge
    /// ones are a fault every 2 MiB and not every 4 KiB.
    #[cfg(target_os = "linux")]
    fn mapped(layout: Layout) -> Option<Self> {
        let whole = layout.size().checked_add(HUGE)?;
        // SAFETY: a new private mapping, at an address that the system chooses.
        let start = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), whole, access, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        let mapping = NonNull::new(start)?;
        let gap = mapping.cast::<u8>().align_offset(HUGE);
        // SAFETY: the mapping is larger than the layout by one huge page, and `gap` is less than that.
        let data = unsafe { mapping.cast::<u8>().add(gap) };
        // SAFETY: these bytes lie in the mapping; that the advice is not taken changes nothing but the speed.
        unsafe { libc::madvise(data.as_ptr().cast(), layout.size(), libc::MADV_HUGEPAGE) };
        Some(Self { data, layout, mapping: Some((mapping, whole)) })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        #[cfg(target_os = "linux")]
        if let Some((start, whole)) = self.mapping {
            // SAFETY: mapped in `mapped` with this length, and unmapped once.
            unsafe { libc::munmap(start.as_ptr(), whole) };
            return;
        }
        // SAFETY: allocated in `zeroed` with this layout, and freed once.
        unsafe { dealloc(self.data.as_ptr(), self.layout) }
    }
}
