// A checkerboard behind the pictures of a tab, and an accordion that knows the loaded checkpoint.
// Both only while LayerDiffuse's box is ticked in that tab: without it, nothing here touches the page.
(function() {
    const GALLERIES = {txt2img: "#txt2img_gallery", img2img: "#img2img_gallery"};
    const SHARED = "#extras_gallery, #lightboxModal";
    const PICTURES = [...Object.values(GALLERIES), ...SHARED.split(", ")].map((place) => `${place} img`).join(", ");
    const COLOURS = {light: ["#f0f0f0", "#c4c4c4"], dark: ["#3c3c3c", "#5a5a5a"]};
    const SQUARE = 12; // pixels on the screen
    const PROPERTIES = ["background-image", "background-position", "background-size", "background-repeat"];
    const STATE = "./internal/layerdiffuse/checkpoint";
    const PERIOD = 2000; // milliseconds
    const visitor = {key: "layerdiffuse_visitor", name: ""};
    let drawn = "";

    function isTicked(id) {
        return Boolean(gradioApp().querySelector(`#${id} input[type="checkbox"]`)?.checked);
    }

    function isEnabled(tab) {
        return isTicked(`${tab}_layerdiffuse_accordion-checkbox`);
    }

    function hasBoard(tab) {
        return isEnabled(tab) && isTicked(`${tab}_layerdiffuse_checkerboard`) && opts.layerdiffuse_checkerboard !== false;
    }

    function tabsWith(condition) {
        return Object.keys(GALLERIES).filter(condition);
    }

    function isOnBoard(picture) {
        const tab = Object.keys(GALLERIES).find((name) => picture.closest(GALLERIES[name]));
        return tab ? hasBoard(tab) : tabsWith(hasBoard).length > 0;
    }

    // A drawing of the picture's own proportions: an image element is often larger than its picture.
    function boardOf(picture, fit) {
        const [width, height] = [picture.naturalWidth, picture.naturalHeight];
        const [across, down] = [picture.clientWidth / width, picture.clientHeight / height];
        const square = SQUARE / (Math[fit === "cover" ? "max" : "min"](across, down) || 1);
        const [one, other] = COLOURS[document.body.classList.contains("dark") ? "dark" : "light"];
        const size = (side) => `width='${side}' height='${side}'`;
        const dark = `<g fill='${other}'><rect ${size(square)}/><rect x='${square}' y='${square}' ${size(square)}/></g>`;
        const tile = `<rect fill='${one}' ${size(2 * square)}/>${dark}`;
        const pattern = `<pattern id='p' ${size(2 * square)} patternUnits='userSpaceOnUse'>${tile}</pattern>`;
        const frame = `xmlns='http://www.w3.org/2000/svg' width='${width}' height='${height}'`;
        const drawing = `<svg ${frame}>${pattern}<rect width='100%' height='100%' fill='url(#p)'/></svg>`;
        return `url("data:image/svg+xml,${encodeURIComponent(drawing)}")`;
    }

    // A background and nothing else: a mask, a filter or an opacity would lift the picture over the gallery's buttons.
    function draw(picture) {
        if (!picture.naturalWidth || !isOnBoard(picture)) {
            if (picture.style.backgroundImage) PROPERTIES.forEach((name) => picture.style.removeProperty(name));
            return;
        }
        const fit = getComputedStyle(picture).objectFit === "cover" ? "cover" : "contain";
        const values = [boardOf(picture, fit), "center", fit, "no-repeat"];
        PROPERTIES.forEach((name, place) => picture.style.setProperty(name, values[place], "important"));
    }

    function follow() {
        const state = `${tabsWith(isEnabled)} ${tabsWith(hasBoard)}`;
        if (state === drawn) return;
        drawn = state;
        document.querySelectorAll(PICTURES).forEach(draw); // the lightbox stands beside the app
        ask();
    }

    // By this name the WebUI knows whose last results the button "Use last result" may show.
    function name(tab) {
        visitor.name ||= kept() || newName();
        const field = gradioApp().querySelector(`#${tab}_layerdiffuse_visitor :is(textarea, input)`);
        ["", visitor.name].forEach((text) => { // again and again: a Gradio 4 that starts misses it, and sees changes alone
            if (!field) return;
            field.value = text;
            field.dispatchEvent(new Event("input"));
        });
    }

    function newName() {
        const numbers = crypto.getRandomValues(new Uint8Array(16));
        return kept([...numbers].map((number) => number.toString(16).padStart(2, "0")).join(""));
    }

    // Across reloads of the page, where the browser allows it.
    function kept(name) {
        try {
            if (name) sessionStorage.setItem(visitor.key, name);
            return name ?? sessionStorage.getItem(visitor.key);
        } catch {
            return name;
        }
    }

    // The checkpoint may change by a drop-down list, by a job and by the API: ask, and let ticked accordions follow.
    async function ask() {
        const tabs = tabsWith(isEnabled);
        tabs.forEach(name);
        if (!tabs.length || document.hidden) return;
        const answer = await fetch(STATE).catch(() => null); // the WebUI may be restarting
        const state = answer?.ok ? (await answer.json()).state : null;
        for (const tab of state === null ? [] : tabs) { // until it is so: a busy Gradio may pass over a click
            const shown = gradioApp().querySelector(`#${tab}_layerdiffuse_state :is(textarea, input)`);
            if (shown?.value !== state) gradioApp().querySelector(`#${tab}_layerdiffuse_refresh`)?.click();
        }
    }

    // A WebUI translates what is added to its page, by its function `processNode`; Gradio changes texts in place, too.
    function translate() {
        if (typeof processNode !== "function" || !Object.keys(window.localization ?? {}).length) return;
        const observer = new MutationObserver((changes) => changes.forEach((change) => processNode(change.target)));
        const accordions = Object.keys(GALLERIES).map((tab) => gradioApp().querySelector(`#${tab}_layerdiffuse_accordion`));
        const parts = [...accordions, gradioApp().querySelector("#layerdiffuse_layers")];
        parts.filter(Boolean).forEach((one) => observer.observe(one, {characterData: true, subtree: true}));
    }

    document.addEventListener("load", (event) => { // it does not bubble
        if (event.target.matches?.(PICTURES)) draw(event.target);
    }, true);
    document.addEventListener("change", follow);
    onUiLoaded(() => {
        follow();
        translate();
        setInterval(ask, PERIOD);
    });
    onAfterUiUpdate(follow); // what was pasted into the page
    onOptionsChanged(() => {
        drawn = "";
        follow();
    });
})();
