/* Keeps the parts marked data-jobify-region up to date. Without it the page is complete, and has a link. */
(() => {
    "use strict";

    const page = document.querySelector("[data-jobify-refresh]");
    if (!page) {
        return;
    }
    const LONGEST = 60_000;
    const every = Number(page.dataset.jobifyRefresh) * 1000;
    const note = page.querySelector("[data-jobify-note]");
    let delay = every;
    let timer = null;
    let looking = false;
    let stopped = false;

    class Left extends Error {}

    async function look() {
        const response = await fetch(page.dataset.jobifyUrl, {
            headers: { [page.dataset.jobifyHeader]: "1" },
            credentials: "same-origin",
            redirect: "manual", // a redirect leads to the login
            signal: AbortSignal.timeout(10_000),
        });
        if (response.type === "opaqueredirect" || response.status === 403 || response.status === 404) {
            throw new Left();
        }
        if (!response.ok) {
            throw new Error(String(response.status));
        }
        return new DOMParser().parseFromString(await response.text(), "text/html");
    }

    function show(fresh) {
        for (const region of document.querySelectorAll("[data-jobify-region]")) {
            const name = CSS.escape(region.dataset.jobifyRegion);
            const next = fresh.querySelector(`[data-jobify-region="${name}"]`);
            // What is being pressed stays until it is let go.
            if (next && !region.querySelector(":active") && next.innerHTML !== region.innerHTML) {
                replace(region, next);
            }
        }
    }

    function replace(region, next) {
        const target = (control) => control.href || control.form?.action;
        const focused = region.contains(document.activeElement) ? target(document.activeElement) : null;
        region.replaceChildren(...next.childNodes);
        if (focused) {
            const controls = [...region.querySelectorAll("a, button")];
            controls.find((control) => target(control) === focused)?.focus({ preventScroll: true });
        }
    }

    function say(words) {
        if (note.textContent !== words) {
            note.textContent = words;
        }
    }

    async function turn() {
        timer = null;
        if (document.hidden || looking || stopped) {
            return;
        }
        looking = true;
        try {
            show(await look());
            say("");
            delay = every;
        } catch (error) {
            if (error instanceof Left) {
                stopped = true;
                say(note.dataset.jobifyLeft);
                return;
            }
            say(note.dataset.jobifyLate);
            delay = Math.min(delay * 2, LONGEST);
        } finally {
            looking = false;
        }
        plan();
    }

    function plan() {
        if (timer === null && !stopped && !document.hidden) {
            timer = setTimeout(turn, delay);
        }
    }

    document.addEventListener("visibilitychange", () => {
        if (!document.hidden && timer === null) {
            turn();
        } else if (document.hidden && timer !== null) {
            clearTimeout(timer);
            timer = null;
        }
    });
    plan();
})();
