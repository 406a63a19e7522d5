// Commands of a test: one on each line of stdin, its result on a line of stdout.
import readline from "node:readline";

export async function serve(commands) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { command, ...argument } = JSON.parse(line);
    let answer;
    try {
      answer = { result: await commands[command](argument) };
    } catch (error) {
      answer = { error: String(error.stack ?? error) };
    }
    console.log(JSON.stringify(answer));
  }
}
