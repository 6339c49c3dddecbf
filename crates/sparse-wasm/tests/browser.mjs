// A browser for the tests: BROWSER is the program, Chromium's or Firefox's.
import puppeteer from "puppeteer-core";

/** Milliseconds that anything may take: far more than it needs, so that one that hangs ends. */
export const LIMIT = 10 * 60 * 1000;

/** Whether it is Firefox, which knows less of what Chromium's tests ask for. */
export const FIREFOX = /firefox/i.test(process.env.BROWSER);

// Without a sandbox, since tests may run as root.
export const launch = () =>
  puppeteer.launch({
    browser: FIREFOX ? "firefox" : "chrome",
    executablePath: process.env.BROWSER,
    args: FIREFOX ? [] : ["--no-sandbox"],
    protocolTimeout: LIMIT,
  });
