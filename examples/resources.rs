//! Resources: the messages of one actor, each with its method and path, and errors with their status.
//!
//! ```console
//! $ cargo run --release --example resources
//! $ curl -i -H 'content-type: application/json' -d '{"name":"Ann"}' http://127.0.0.1:5050/customers
//! $ curl http://127.0.0.1:5050/customers/1
//! $ curl -i -X DELETE http://127.0.0.1:5050/customers/1
//! ```

use std::collections::BTreeMap;

use layercake::{prelude::*, service::of_actor};

#[data]
#[derive(Clone)]
struct Customer {
    name: String,
    #[arg(default)]
    age: Option<u8>,
}

/// A customer with what tells this state of it from others.
#[data]
#[derive(Clone)]
struct Entry {
    id: u32,
    version: u32,
    customer: Customer,
}

#[data]
enum NoCustomer {
    #[status(404)]
    NotFound,
    /// Somebody else has changed it.
    #[status(412)]
    Changed,
}

/// All customers, or those of a name.
#[message(reply = Vec<Entry>, get = "/customers", idempotent)]
struct List {
    #[arg(default)]
    name: Option<String>,
}

/// A new customer.
#[message(reply = Entry, post = "/customers", status = 201)]
struct Create {
    #[arg(body)]
    customer: Customer,
}

/// One customer.
#[message(reply = Result<Entry, NoCustomer>, get = "/customers/{id}", etag = "version", idempotent)]
struct Show {
    id: u32,
}

/// Changes a customer, unless it is another version of it than is meant.
#[message(reply = Result<Entry, NoCustomer>, put = "/customers/{id}", etag = "version")]
struct Change {
    id: u32,
    #[arg(header = "if-match", default)]
    version: Option<String>,
    #[arg(body)]
    customer: Customer,
}

/// Forgets a customer.
#[message(reply = Result<(), NoCustomer>, delete = "/customers/{id}", status = 204)]
struct Remove {
    id: u32,
}

#[derive(Default)]
struct Shop {
    customers: BTreeMap<u32, Entry>,
    last: u32,
}

#[actor]
impl Shop {
    async fn list(&mut self, List { name }: List) -> Vec<Entry> {
        let wanted = |entry: &&Entry| name.as_ref().is_none_or(|n| entry.customer.name == *n);
        self.customers.values().filter(wanted).cloned().collect()
    }

    async fn create(&mut self, Create { customer }: Create) -> Entry {
        self.last += 1;
        let entry = Entry { id: self.last, version: 1, customer };
        self.customers.insert(entry.id, entry.clone());
        entry
    }

    async fn show(&mut self, Show { id }: Show) -> Result<Entry, NoCustomer> {
        self.customers.get(&id).cloned().ok_or(NoCustomer::NotFound)
    }

    async fn change(&mut self, change: Change) -> Result<Entry, NoCustomer> {
        let entry = self.customers.get_mut(&change.id).ok_or(NoCustomer::NotFound)?;
        if change.version.is_some_and(|version| version != format!("\"{}\"", entry.version)) {
            return Err(NoCustomer::Changed);
        }
        (entry.customer, entry.version) = (change.customer, entry.version + 1);
        Ok(entry.clone())
    }

    async fn remove(&mut self, Remove { id }: Remove) -> Result<(), NoCustomer> {
        self.customers.remove(&id).map(drop).ok_or(NoCustomer::NotFound)
    }
}

#[layercake::main]
async fn main(node: Node) -> Result<()> {
    let listen = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:5050".to_owned());
    let shop = node.spawn(Shop::default());
    node.http(&listen).serve_all(of_actor(shop)).await?;
    Ok(())
}
