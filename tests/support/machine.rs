//! Hosts of a lab that run `layer-cake`, each with a mesh folder of its own.

use std::path::PathBuf;

use layercake_lab::{Host, Lab, Program, eventually};

use super::{Folders, LAYER_CAKE, SOON, built, curl_by, of_mesh, run};

/// Where the demo's gateway listens unless told otherwise.
const URL: &str = "http://127.0.0.1:5050/Xy?x=2&y=2";

/// A host of the lab with its own mesh folder.
pub struct Machine {
    pub host: Host,
    pub mesh: PathBuf,
    /// What every command is told.
    pub env: Vec<(String, String)>,
}

impl Machine {
    pub fn new(lab: &Lab, folders: &Folders, name: &str) -> Self {
        Self { host: lab.host(name), mesh: folders.mesh(name), env: Vec::new() }
    }

    pub fn with_env(mut self, variables: &[(&str, &str)]) -> Self {
        let owned = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        self.env.extend(owned);
        self
    }

    pub fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = of_mesh(self.host.command(LAYER_CAKE), &self.mesh, arguments);
        command.envs(self.env.clone());
        command
    }

    /// One of `tests/programs` on this host.
    pub fn program(&self, name: &str, arguments: &[&str]) -> std::process::Command {
        let command = self.host.command(&built(name).to_string_lossy());
        let mut command = of_mesh(command, &self.mesh, arguments);
        command.envs(self.env.clone());
        command
    }

    pub fn start(&self, arguments: &[&str]) -> Program {
        Program::start(&mut self.command(arguments))
    }

    pub fn run(&self, arguments: &[&str]) -> String {
        let (ok, out, err) = run(self.command(arguments));
        assert!(ok, "layer-cake {arguments:?}: {err}");
        out
    }

    /// The host ids behind a name, as this host sees it.
    pub fn hosts_of(&self, name: &str) -> Vec<String> {
        let hosts = self.run(&["ls", "--json", name]);
        hosts
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line))
            .map(|row| row["host"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    pub fn id(&self) -> String {
        let facts: serde_json::Value =
            serde_json::from_str(&self.run(&["mesh", "show", "--json"])).expect("facts");
        facts["host"].as_str().expect("an id").to_owned()
    }

    pub fn get(&self) -> (u16, String) {
        curl_by(self.host.command("curl"), &[URL])
    }
}

/// Joins hosts to the mesh of the first, on which something must run or be about to.
pub fn join(first: &Machine, others: &[&Machine]) {
    eventually(SOON, "something that answers a joining host", || {
        run(first.command(&["mesh", "invite"])).0.then_some(())
    });
    for other in others {
        let token = first.run(&["mesh", "invite"]);
        other.run(&["mesh", "join", &token]);
    }
}

/// A gateway on the first host and two workers on each of the others, joined and in view.
pub fn gateway_and_workers(a: &Machine, [b, c]: [&Machine; 2]) -> [Program; 3] {
    // Anything of layer-cake answers a joining host, so also the gateway.
    let gateway = a.start(&["demo", "gateway"]);
    eventually(SOON, "a gateway that listens", || (a.get().0 == 503).then_some(()));
    join(a, &[b, c]);
    let workers = [b, c].map(|machine| machine.start(&["demo", "worker", "--workers", "2"]));
    gateway.wait_line(|line| line.starts_with("ready: "), SOON);
    let ids = [b.id(), c.id()];
    eventually(SOON, "two workers on each of two hosts", || {
        let hosts = a.hosts_of("textures:worker");
        let on = |id| hosts.iter().filter(|host| *host == id).count();
        ids.iter().all(|id| on(id) == 2).then_some(())
    });
    let [one, other] = workers;
    [gateway, one, other]
}
