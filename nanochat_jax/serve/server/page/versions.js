// Versions of a turn: what else was asked, or answered, in its place. The first message of those that
// differ has `versions`: for each version the messages from there on, null for the one on screen.

// Puts away what stands from `at` on, unless it says nothing; the versions of what comes next there.
export function putAway(messages, at) {
  const gone = messages.splice(at);
  const worth = gone.some(({ role, parts }) => role === "assistant" && parts.length);
  return [...versionsWith(gone).filter((version) => version !== gone || worth), null];
}

// Shows version `number` of the message at `at`, and all that came after it.
export function turnTo(messages, at, number) {
  const versions = versionsWith(messages.splice(at));
  const next = versions[number];
  versions[number] = null;
  messages.push(withVersions(next[0], versions), ...next.slice(1));
}

// The versions of messages that are taken off the screen, they among them.
function versionsWith(gone) {
  const { versions = [null] } = gone[0];
  delete gone[0].versions;
  return versions.map((version) => version ?? gone);
}

// The same message with these versions of it, if it has others.
export function withVersions(message, versions) {
  if (versions.length > 1) message.versions = versions;
  return message;
}

// [which version the message is, of how many], counted from 0.
export const placeOf = ({ versions = [null] }) => [versions.indexOf(null), versions.length];

// All messages of a chat, those of other versions included.
export function* everyMessage(messages) {
  for (const message of messages) {
    yield message;
    for (const version of message.versions ?? []) yield* everyMessage(version ?? []);
  }
}
