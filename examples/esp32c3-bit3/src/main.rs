//! The firmware. On a machine with an operating system the same computation prints the same lines.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod bare;

#[cfg(not(target_os = "none"))]
fn main() {
    let mut report = String::new();
    esp32c3_bit3::Machine::new().run(&mut report).expect("a string takes everything");
    print!("{report}");
}
