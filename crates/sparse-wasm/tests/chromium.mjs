// Chromium for the tests: BROWSER is the program.
import puppeteer from "puppeteer-core";

/** Milliseconds that anything may take: far more than it needs, so that one that hangs ends. */
export const LIMIT = 10 * 60 * 1000;

// Without a sandbox, since tests may run as root.
export const launch = () =>
  puppeteer.launch({ executablePath: process.env.BROWSER, args: ["--no-sandbox"], protocolTimeout: LIMIT });
