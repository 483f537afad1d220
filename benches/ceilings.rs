//! What this machine's products could reach, per kernel, on one thread and on all: the ceilings that the
//! results in `benches/results/` are fractions of. `cargo bench --bench ceilings`.

use vecdrift::engine::cpu::product_rates;

fn main() {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    println!("| kernel | threads | f32, G multiply-adds/s | 8-bit codes |");
    println!("|---|---|---|---|");
    for threads in [1, all] {
        for rates in product_rates(threads).expect("threads start") {
            let (name, f32, codes) = (rates.kernel, rates.f32, rates.codes);
            println!("| {name} | {threads} | {f32:.0} | {codes:.0} |");
        }
    }
}
