//! The names of the nodes that pods are on, as far as the right to list pods shows them. Touches the API server: requests tables, as
//! `kubectl get pods -o wide` does, which contain a pod's node and little else.

use std::io::Read;

use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, Question};
use super::messages::ListMeta;
use crate::datastore::error::Error;

const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1";
/// The number of pods on a page, and the maximum number of pages.
const PAGE: usize = 500;
const MOST_PAGES: usize = 10;
/// A row has about 300 bytes.
const LARGEST: u64 = 8 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(default)]
    column_definitions: Vec<Column>,
    #[serde(default)]
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
}

#[derive(Deserialize)]
struct Row {
    cells: Vec<Value>,
}

impl Table {
    fn nodes(&self) -> impl Iterator<Item = String> {
        let column = self.column_definitions.iter().position(|column| column.name == "Node");
        let cell = move |row: &Row| row.cells.get(column?)?.as_str().map(str::to_owned);
        self.rows.iter().filter_map(cell).filter(|node| node != "<none>")
    }
}

/// Returns the names of nodes, each as often as it has pods.
pub(super) fn names(client: &mut Client) -> Result<Vec<String>, Error> {
    let (mut names, mut next) = (Vec::new(), String::new());
    for _ in 0..MOST_PAGES {
        let path = format!("/api/v1/pods?limit={PAGE}&includeObject=None{next}");
        let question = Question { path: &path, accept: TABLE, verb: "list", resource: "pods" };
        let answer = client.get(&question)?.take(LARGEST);
        let table: Table = serde_json::from_reader(std::io::BufReader::new(answer)).map_err(|error| client.unreadable(error))?;
        names.extend(table.nodes());
        let Some(query) = table.metadata.next_page() else { break };
        next = format!("&{query}");
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_column_of_nodes_is_found_by_its_name() {
        let table = r#"{"kind":"Table","metadata":{"resourceVersion":"7"},"columnDefinitions":[{"name":"Name"},{"name":"Node"}],
            "rows":[{"cells":["web","worker-1"],"object":null},{"cells":["pending","<none>"]},{"cells":["short"]},{"cells":["x",7]}]}"#;
        let table: Table = serde_json::from_str(table).unwrap();
        assert_eq!(table.nodes().collect::<Vec<_>>(), ["worker-1"]);
        assert_eq!(serde_json::from_str::<Table>(r#"{"rows":[{"cells":["a"]}]}"#).unwrap().nodes().count(), 0);
    }
}
