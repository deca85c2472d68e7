// Under the gallery of a tab: the last set of layers as a file, and in Photopea. Only while LayerDiffuse's box is ticked.
(function() {
    const TABS = ["txt2img", "img2img"];
    const ADDRESS = "./internal/layerdiffuse/layers";
    const NOTES = "X-LayerDiffuse-Notes";
    const PHOTOPEA = "https://www.photopea.com";
    const VISITOR = "layerdiffuse_visitor"; // where javascript/layerdiffuse.js keeps the page's name
    const TEXTS = {
        "save": "Save layers as",
        "which": "The layers of the chosen picture, or the last ones",
        "format": "Format of the file",
        "photopea": "Open in Photopea",
        "where": "Opens photopea.com in this page and hands it the layers",
        "recomposite": "Recomposite",
        "exact": "Foreground colours solved anew, so that any editor blends the layers to the blended picture",
        "close": "Close",
        "psd": "Photoshop (PSD)",
        "ora": "OpenRaster",
        "zip": "ZIP of PNG files",
        "webp": "WebP files",
        "sprites": "Sprite sheet"
    };
    const FORMATS = ["psd", "ora", "zip", "webp", "sprites"];

    function isTicked(tab) {
        return Boolean(gradioApp().querySelector(`#${tab}_layerdiffuse_accordion-checkbox input[type="checkbox"]`)?.checked);
    }

    function element(kind, traits = {}, ...children) {
        const made = Object.assign(document.createElement(kind), traits);
        made.append(...children);
        return made;
    }

    function button(text, tooltip, act) {
        const made = element("button", {type: "button", textContent: text, title: tooltip});
        made.addEventListener("click", act);
        return made;
    }

    function bar(tab) {
        const formats = FORMATS.map((value) => element("option", {value, textContent: TEXTS[value]}));
        const kind = element("select", {className: "layerdiffuse_format", title: TEXTS.format}, ...formats);
        const again = element("input", {type: "checkbox"});
        const recomposite = element("label", {title: TEXTS.exact}, again, element("span", {textContent: TEXTS.recomposite}));
        const told = element("div", {className: "layerdiffuse_told", role: "status"});
        const fetched = (wanted) => layers(tab, wanted, again.checked, told);
        const made = element("div", {id: `${tab}_layerdiffuse_layers`, className: "layerdiffuse_layers"},
            button(TEXTS.save, TEXTS.which, async() => save(await fetched(kind.value))),
            kind,
            button(TEXTS.photopea, TEXTS.where, async() => open(await fetched("psd"))),
            recomposite, told);
        return made;
    }

    function visitor(tab) {
        const field = gradioApp().querySelector(`#${tab}_layerdiffuse_visitor :is(textarea, input)`);
        return field?.value || sessionStorage.getItem(VISITOR) || "";
    }

    // The file of the picture that is chosen in the gallery; of none, the server takes the last set.
    function chosen(tab) {
        const gallery = gradioApp().querySelector(`#${tab}_gallery`);
        const large = gallery?.querySelector(".preview img, img[data-testid='detailed-image']");
        const address = large?.getAttribute("src")?.split("?")[0] ?? "";
        return address.startsWith("data:") ? "" : decodeURIComponent(address.split(/[\\/]/).pop());
    }

    async function layers(tab, kind, recomposite, told) {
        const wanted = new URLSearchParams({visitor: visitor(tab), tab, picture: chosen(tab), kind, recomposite});
        told.textContent = "...";
        try {
            const answer = await fetch(`${ADDRESS}?${wanted}`);
            if (!answer.ok) {
                told.textContent = sentence(await answer.json());
                return null;
            }
            told.textContent = decodeURIComponent(answer.headers.get(NOTES) ?? "");
            return {name: nameIn(answer), content: await answer.blob()};
        } catch (error) { // the WebUI may be restarting
            told.textContent = String(error);
            return null;
        }
    }

    function sentence({got, expected, what_to_do: advice}) {
        return got ? `got ${got}; expected ${expected}. What to do: ${advice}.` : "The WebUI gave no layers.";
    }

    function nameIn(answer) {
        const told = answer.headers.get("Content-Disposition") ?? "";
        return decodeURIComponent(told.split("filename*=UTF-8''")[1] ?? "layers");
    }

    function save(file) {
        if (!file) return;
        const link = element("a", {href: URL.createObjectURL(file.content), download: file.name});
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    }

    // Photopea in a frame says "done" when it can take a file, and once more when it has it.
    async function open(file) {
        if (!file) return;
        const content = await file.content.arrayBuffer();
        const frame = element("iframe", {src: PHOTOPEA, title: "Photopea"});
        const listen = (event) => {
            if (event.source !== frame.contentWindow || event.origin !== PHOTOPEA || event.data !== "done") return;
            window.removeEventListener("message", listen);
            frame.contentWindow.postMessage(content, PHOTOPEA, [content]);
        };
        const end = () => {
            window.removeEventListener("message", listen);
            made.remove();
        };
        const made = element("div", {id: "layerdiffuse_photopea"}, button(TEXTS.close, "", end), frame);
        window.addEventListener("message", listen);
        document.body.append(made);
    }

    function follow() {
        for (const tab of TABS) {
            const place = gradioApp().querySelector(`#image_buttons_${tab}`) ?? gradioApp().querySelector(`#${tab}_gallery`);
            const there = gradioApp().querySelector(`#${tab}_layerdiffuse_layers`);
            if (isTicked(tab) && place && !there) place.after(bar(tab));
            else if (there) there.hidden = !isTicked(tab);
        }
    }

    document.addEventListener("change", follow);
    onUiLoaded(follow);
    onAfterUiUpdate(follow);
})();
