// The box "Checkerboard preview" and the setting of that name, as a class on the page's body; style.css does the rest.
(function() {
    const CLASS = "layerdiffuse-checkerboard";
    const BOXES = '[id$="_layerdiffuse_checkerboard"] input[type="checkbox"]';
    const PICTURES = "#txt2img_gallery img, #img2img_gallery img, #extras_gallery img, #lightboxModal img";
    const seen = new Map();

    // The box that changed last decides, in whichever tab it is.
    function follow() {
        for (const box of gradioApp().querySelectorAll(BOXES)) {
            if (seen.get(box) === box.checked) continue;
            seen.set(box, box.checked);
            document.body.classList.toggle(CLASS, box.checked && opts.layerdiffuse_checkerboard !== false);
        }
    }

    // An element is often larger than its picture: tell the style sheet the picture's proportions.
    function measure(event) {
        const picture = event.target;
        if (picture.tagName !== "IMG" || !picture.naturalWidth || !picture.matches(PICTURES)) return;
        const size = `width='${picture.naturalWidth}' height='${picture.naturalHeight}'`;
        const drawing = `<svg xmlns='http://www.w3.org/2000/svg' ${size}><rect width='100%' height='100%'/></svg>`;
        const url = `url("data:image/svg+xml,${encodeURIComponent(drawing)}")`;
        picture.style.setProperty("--layerdiffuse-rectangle", url);
    }

    document.addEventListener("load", measure, true); // it does not bubble
    document.addEventListener("change", follow);
    onUiLoaded(follow);
    onAfterUiUpdate(follow); // what was pasted into the page
    onOptionsChanged(function() {
        seen.clear();
        follow();
    });
})();
