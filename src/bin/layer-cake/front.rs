//! What a front door can be told on the command line.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use layercake::{
    AccessLog, Cidr, GatewayConfig, Http, MeshPage, Rate, TlsFiles, WebOrigin, prelude::*,
};

#[derive(Debug, Args)]
pub(crate) struct Front {
    /// Where to serve HTTP; port 0 picks a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5050")]
    listen: String,
    /// Take the port from a front door of yours that serves there, without refusing a connection.
    #[arg(long)]
    take_over: bool,
    /// Serve HTTPS with this certificate (PEM); it is read again when it changes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Believe this proxy, or all of a range as in `10.0.0.0/8`, when it says who the client is.
    #[arg(long = "proxy", value_name = "RANGE")]
    proxies: Vec<Cidr>,
    /// Connections from those proxies begin with a PROXY header.
    #[arg(long, requires = "proxies")]
    proxy_protocol: bool,
    /// The header that names a client, in place of its address.
    #[arg(long, value_name = "NAME")]
    client_header: Option<http::HeaderName>,
    /// Let pages of this origin, as in `https://app.example`, ask everything and read the answers; `*` is
    /// any. Pages of other sites are refused what may change something.
    #[arg(long = "origin", value_name = "ORIGIN")]
    origins: Vec<WebOrigin>,
    /// How many requests per second a client may send.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// How many of them may come at once; by default as many as in a second.
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<u32>,
    /// Write each request to this file as a line of JSON; `-` is the standard error.
    #[arg(long, value_name = "FILE")]
    access_log: Option<PathBuf>,
    /// Answer as the Python library layer-cake does, for programs that are written with it.
    #[arg(long)]
    ancestor: bool,
    /// Who is shown the mesh page, `/mesh`: with `auto` whoever has the key, where one is set, else
    /// whoever is on this host, where ADDR is on loopback.
    #[arg(long, value_enum, default_value_t = PageFor::Auto, value_name = "WHO")]
    mesh_page: PageFor,
    /// A file with the key to the mesh page, at least 16 characters. Also: the key itself in
    /// `LAYERCAKE_MESH_KEY`.
    #[arg(long, value_name = "FILE")]
    mesh_key_file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PageFor {
    /// Who has the key, or is on this host.
    Auto,
    /// Nobody.
    Off,
}

/// The environment variable with the key to the mesh page.
const KEY_VARIABLE: &str = "LAYERCAKE_MESH_KEY";

impl Front {
    /// The front door of a node as it was said to be.
    pub(crate) fn of(self, node: &Node) -> Result<Http> {
        let page = self.page()?;
        let http = node.http(&self.listen).mesh_page(page);
        Ok(http.configure(|config| self.apply(config)))
    }

    /// Who is shown the mesh page.
    fn page(&self) -> Result<MeshPage> {
        if self.mesh_page == PageFor::Off {
            return Ok(MeshPage::Off);
        }
        let (key, of) = match (&self.mesh_key_file, std::env::var(KEY_VARIABLE)) {
            (Some(file), _) => {
                let key = std::fs::read_to_string(file).map_err(|error| {
                    format!("cannot read the key in `{}`: {error}", file.display())
                })?;
                (key, format!("`{}`", file.display()))
            }
            (None, Ok(key)) if !key.is_empty() => (key, KEY_VARIABLE.to_owned()),
            _ => return Ok(MeshPage::OnLoopback),
        };
        Ok(MeshPage::with_key(&key).map_err(|error| format!("{of} is of no use: {error}"))?)
    }

    /// Changes the settings to what was said.
    fn apply(self, config: &mut GatewayConfig) {
        config.ancestor = self.ancestor;
        config.take_over = self.take_over;
        config.tls = self.tls_cert.zip(self.tls_key).map(|(cert, key)| TlsFiles::new(cert, key));
        config.proxies = self.proxies;
        config.proxy_protocol = self.proxy_protocol;
        config.client_header = self.client_header;
        config.origins = self.origins;
        config.rate = self.rate.map(|per_second| {
            let burst = self.burst.unwrap_or(per_second);
            Rate { per_second, burst }
        });
        config.access_log = self.access_log.map(|path| match path.as_os_str().to_str() {
            Some("-") => AccessLog::Stderr,
            _ => AccessLog::File(path),
        });
    }
}
