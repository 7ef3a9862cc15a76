// What a person can mend: a sentence that says the rule, what was found, and what to do.

/** Shown on the page as it is; any other error is ours. */
export class PageError extends Error {}
