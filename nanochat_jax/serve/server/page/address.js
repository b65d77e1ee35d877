// Each chat has an address, #/chat/<id>; a chat in which nothing was asked yet has none.

const PATTERN = /^#\/chat\/([\w-]+)$/;

export const hrefOf = (id) => `#/chat/${id}`;

// The id of the chat that the address names, or null.
export const idInAddress = () => PATTERN.exec(location.hash)?.[1] ?? null;

// Puts a chat's address (null: of none) into the browser's history; `replace`: in place of this one.
export function setAddress(id, replace = false) {
  if (id === idInAddress()) return;
  const address = id ? hrefOf(id) : location.pathname + location.search;
  history[replace ? "replaceState" : "pushState"](null, "", address);
}

// `listener` is called when the address changes by anything but `setAddress`: Back, a link.
export const onAddress = (listener) => addEventListener("popstate", listener);
