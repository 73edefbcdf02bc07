//! Writes the seeds of every target, as `OUT/TARGET/NUMBER`: what the golden files of the repository hold; and the list of the
//! bugs that can be planted, each with the target that must find it, as `OUT/plants`, and of the files that each target is
//! about, as `OUT/rooms`.

use ssyncp_fuzz::bodies;

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
    let rooms: String = bodies::TARGETS.iter().map(|target| format!("{} {}\n", target.name, target.room)).collect();
    std::fs::write(std::path::Path::new(&out).join("rooms"), rooms)?;
    let plants: String =
        ssyncp::planted::Plant::ALL.iter().map(|(_, name, target)| format!("{name} {target}\n")).collect();
    std::fs::write(std::path::Path::new(&out).join("plants"), plants)?;
    Ok(())
}
