// The Layers tab: a browser is known again by a name that it keeps, and other tabs may switch to this one.
(function() {
    const PREFIX = "#layerdiffuse_layers";
    const KEY = "layerdiffuse-layers";
    const PERIOD = 1500; // milliseconds
    let token = "";

    function kept() {
        try {
            return localStorage.getItem(KEY);
        } catch {
            return null;
        }
    }

    function keep(name) {
        try {
            localStorage.setItem(KEY, name);
        } catch {
            // the stack lasts as long as the page then
        }
        return name;
    }

    function newName() {
        const numbers = crypto.getRandomValues(new Uint8Array(16));
        return [...numbers].map((number) => number.toString(16).padStart(2, "0")).join("");
    }

    // Until the server has answered: a busy Gradio may pass over a click.
    function arrive() {
        const field = gradioApp().querySelector(`${PREFIX}_token :is(textarea, input)`);
        if (!field || gradioApp().querySelector(`${PREFIX}_style [data-arrived]`)) return;
        token ||= kept() || keep(newName());
        ["", token].forEach((text) => { // a Gradio 4 that is still starting misses what is typed, and sees changes alone
            field.value = text;
            field.dispatchEvent(new Event("input", {bubbles: true}));
        });
        setTimeout(() => gradioApp().querySelector(`${PREFIX}_arrive`)?.click(), 200);
        setTimeout(arrive, PERIOD);
    }

    onUiLoaded(arrive);
})();

// The WebUI calls this when a picture is sent here.
function switch_to_layerdiffuse_layers() { // eslint-disable-line no-unused-vars
    const tabs = gradioApp().querySelector("#tabs");
    const place = [...tabs.children].filter((child) => child.matches(".tabitem")).findIndex((item) => item.id === "tab_layerdiffuse_layers");
    const button = tabs.querySelector("#tab_layerdiffuse_layers-button") ?? tabs.querySelectorAll(":scope > .tab-nav > button")[place];
    button?.click();
    const fold = tabs.querySelector("#layerdiffuse_layers_given"); // where the picture goes
    fold?.querySelector(".label-wrap:not(.open)")?.click();
    setTimeout(() => fold?.scrollIntoView({block: "nearest"}), 300); // when the tab is there
}
