// Reads a JSON list of queries and writes the list of their trees: name, text, error, children.
import { readFileSync } from "node:fs";
import { parser } from "@grafana/lezer-logql";

function tree(query) {
  const stack = [{ children: [] }];
  parser.parse(query).iterate({
    enter(node) {
      const made = {
        name: node.name,
        text: query.slice(node.from, node.to),
        error: node.type.isError,
        children: [],
      };
      stack.at(-1).children.push(made);
      stack.push(made);
    },
    leave() {
      stack.pop();
    },
  });
  return stack[0].children[0];
}

process.stdout.write(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(tree)));
