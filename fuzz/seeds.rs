//! Writes the seeds of every target, as `OUT/TARGET/NUMBER`: what the golden files of the repository hold.

#[path = "bodies/mod.rs"]
mod bodies;

fn main() -> std::io::Result<()> {
    let out = std::env::args().nth(1).expect("usage: seeds OUT");
    for target in bodies::TARGETS {
        let folder = std::path::Path::new(&out).join(target.name);
        std::fs::create_dir_all(&folder)?;
        let seeds = (target.seeds)();
        for (number, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("{number:04}")), seed)?;
        }
        println!("{:>16} {} seeds", target.name, seeds.len());
    }
    Ok(())
}
