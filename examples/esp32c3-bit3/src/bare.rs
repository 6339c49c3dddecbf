//! Start, memory and UART on qemu's `virt` machine, laid out like an ESP32-C3: 4 MiB of flash, 400 KiB of RAM.
//!
//! A board has another UART and another way to end; everything else stays.

use core::alloc::{GlobalAlloc, Layout};
use core::arch::global_asm;
use core::cell::UnsafeCell;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::ptr;

use esp32c3_bit3::Machine;

/// Transmit register of the 16550 UART.
const UART: *mut u8 = 0x1000_0000 as *mut u8;
/// Ends the emulator: 0x5555 is success.
const FINISHER: *mut u32 = 0x0010_0000 as *mut u32;
/// What untouched stack holds.
const PAINT: u32 = 0xa5a5_a5a5;
/// Bytes of the memory that is taken at the start, and never given back.
const ARENA: usize = 16 << 10;

// The stack, initialized data, zeros, and paint on the stack for its high-water mark.
global_asm!(
    ".section .init, \"ax\"",
    ".globl _start",
    "_start:",
    "  la sp, __stack_top",
    "  la t0, trap",
    "  csrw mtvec, t0",
    "  la t0, __data_load",
    "  la t1, __data_start",
    "  la t2, __data_end",
    "1: bgeu t1, t2, 2f",
    "  lw t3, 0(t0)",
    "  sw t3, 0(t1)",
    "  addi t0, t0, 4",
    "  addi t1, t1, 4",
    "  j 1b",
    "2: la t0, __bss_start",
    "  la t1, __bss_end",
    "3: bgeu t0, t1, 4f",
    "  sw zero, 0(t0)",
    "  addi t0, t0, 4",
    "  j 3b",
    "4: la t0, __bss_end",
    "  li t1, 0xa5a5a5a5",
    "5: bgeu t0, sp, 6f",
    "  sw t1, 0(t0)",
    "  addi t0, t0, 4",
    "  j 5b",
    "6: call {main}",
    "  .balign 4",
    "trap:",
    "  csrr a0, mcause",
    "  csrr a1, mepc",
    "  la sp, __stack_top",
    "  call {trapped}",
    main = sym main,
    trapped = sym trapped,
);

unsafe extern "C" {
    static __flash_start: u8;
    static __flash_end: u8;
    static __ram_start: u8;
    static __bss_end: u8;
    static __stack_top: u8;
}

struct Uart;

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the machine's UART is at this address and takes a byte at any time.
            unsafe { UART.write_volatile(byte) };
        }
        Ok(())
    }
}

/// Memory that is only ever taken, from the start of `bytes` on.
#[repr(align(16))]
struct Arena {
    bytes: UnsafeCell<[u8; ARENA]>,
    used: UnsafeCell<usize>,
}

// SAFETY: there is one core and no interrupt.
unsafe impl Sync for Arena {}

// SAFETY: every allocation lies inside `bytes`, aligned, behind those before it.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: there is one core and no interrupt.
        let used = unsafe { &mut *self.used.get() };
        let base = self.bytes.get().cast::<u8>();
        let start = (base as usize + *used).next_multiple_of(layout.align()) - base as usize;
        match start.checked_add(layout.size()).filter(|end| *end <= ARENA) {
            Some(end) => {
                *used = end;
                base.wrapping_add(start)
            }
            None => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

#[global_allocator]
static MEMORY: Arena = Arena { bytes: UnsafeCell::new([0; ARENA]), used: UnsafeCell::new(0) };

fn taken() -> usize {
    // SAFETY: there is one core and no interrupt.
    unsafe { *MEMORY.used.get() }
}

extern "C" fn main() -> ! {
    let mut machine = Machine::new();
    let before = taken();
    // Writing to this UART cannot fail.
    let _ = machine.run(&mut Uart);
    let after = taken();
    let _ = memory(before, after);
    // Memory that is taken while it runs would run out.
    end(if before == after { 0 } else { 3 })
}

/// Prints what of the chip's memory is used.
fn memory(before: usize, after: usize) -> fmt::Result {
    let [flash_start, flash_end, ram_start, bss_end, top] =
        [&raw const __flash_start, &raw const __flash_end, &raw const __ram_start, &raw const __bss_end, &raw const __stack_top]
            .map(|p| p as usize);
    let mut lowest = bss_end;
    // SAFETY: words between the static data and the top of the stack, all of them painted at the start.
    while lowest < top && unsafe { (lowest as *const u32).read_volatile() } == PAINT {
        lowest += 4;
    }
    let mut out = Uart;
    writeln!(out, "memory: flash {}", flash_end - flash_start)?;
    writeln!(out, "memory: static {} (of it the arena {ARENA}, used {before})", bss_end - ram_start)?;
    writeln!(out, "memory: stack {}", top - lowest)?;
    writeln!(out, "memory: taken while running {}", after - before)
}

/// Ends the emulator with this status.
fn end(status: u32) -> ! {
    // SAFETY: the machine's test device is at this address.
    unsafe { FINISHER.write_volatile(if status == 0 { 0x5555 } else { status << 16 | 0x3333 }) };
    loop {}
}

extern "C" fn trapped(cause: u32, at: u32) -> ! {
    let _ = writeln!(Uart, "trap {cause:#x} at {at:#x}");
    end(2)
}

#[panic_handler]
fn panicked(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Uart, "{info}");
    end(101)
}
