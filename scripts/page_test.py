#!/usr/bin/env python3
"""Drives the page of `tcn serve` in Chromium, as a person would, and prints a line for each thing that holds.

    apt-get install chromium chromium-driver
    python3 -m venv venv && venv/bin/pip install selenium
    tcn serve --model MODEL &
    venv/bin/python scripts/page_test.py http://127.0.0.1:8080/ --stop-command "kill $!"

`--screenshots` takes a folder for pictures. `--axe` takes axe.min.js of axe-core (`npm pack axe-core`), and then
serious violations of its accessibility rules fail. `--stop-command` stops the server at the end: the page has to say
so. What a server seldom does (an error, a key that is wanted, a connection that breaks, 10,000 tokens at once) is
answered inside the browser. Exit code 0 means that all holds, 77 that there is no browser or no selenium.
"""
import argparse
import json
import pathlib
import shutil
import subprocess
import sys
import time

NO_BROWSER = 77
WIDE, PHONE = (1100, 850), (375, 740)
# Enough that a fast server is still writing while something is looked at.
SOME, MANY = 3000, 60_000

try:
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
except ImportError:
    print("NOT TESTED: the Python package selenium is missing (pip install selenium)", file=sys.stderr)
    sys.exit(NO_BROWSER)

# Keeps what the page asks, and gives answers of our own in place of the server's where there are some.
WIRETAP = """
window.sent = []; window.answers = {};
const real = window.fetch;
window.fetch = (path, options) => {
  if (options?.body) sent.push({...JSON.parse(options.body), headers: options.headers});
  const answer = answers[path];
  if (!answer) return real(path, options);
  if (answer.gone) return Promise.reject(new TypeError("Failed to fetch"));
  return Promise.resolve(new Response(answer.body, answer));
};
window.event = (text, tokens, text_offset, top = {a: -1, b: -2}) => {
  const token_logprobs = tokens.map(() => -5 * Math.random()), top_logprobs = tokens.map(() => top);
  const logprobs = {tokens, token_logprobs, top_logprobs, text_offset};
  return "data: " + JSON.stringify({choices: [{index: 0, text, finish_reason: null, logprobs}]}) + "\\n\\n";
};
window.DONE = "data: [DONE]\\n\\n";
"""
# Ten thousand tokens, a hundred at a time, as fast as the page takes them.
FLOOD = """
window.made = 0;
const encoder = new TextEncoder();
answers["v1/completions"] = {body: new ReadableStream({async pull(stream) {
  await new Promise((go) => requestAnimationFrame(go));
  const letter = (_, i) => i % 60 === 59 ? "\\n" : "abcdefgh "[Math.floor(9 * Math.random())];
  const tokens = Array.from({length: 100}, letter);
  if (made < 10000) stream.enqueue(encoder.encode(event(tokens.join(""), tokens, tokens.map((_, i) => made + i))));
  else { stream.enqueue(encoder.encode(DONE)); stream.close(); }
  made += 100;
}})};
"""
# Counts in how many steps the text grew.
GROWTH = """
window.steps = 0;
new MutationObserver(() => window.steps++).observe(document.getElementById("text"), {childList: true});
"""


class Page:
    def __init__(self, driver, url, screenshots):
        self.driver, self.url, self.screenshots = driver, url, screenshots

    def js(self, code, *args):
        return self.driver.execute_script(code, *args)

    def by(self, css):
        return self.driver.find_element(By.CSS_SELECTOR, css)

    def all(self, css):
        return self.driver.find_elements(By.CSS_SELECTOR, css)

    def tokens(self, css=""):
        return self.js("""const nodes = document.querySelectorAll("#text .token" + arguments[0]);
            return [...nodes].map((node) => node.textContent)""", css)

    def token(self, at, css=":not(.prompt)"):
        """One of the tokens that the model made."""
        return self.js("return document.querySelectorAll('#text .token' + arguments[1])[arguments[0]]", at, css)

    def shown(self, css):
        return any(element.is_displayed() for element in self.all(css))

    def text(self):
        return self.js("return document.getElementById('text').textContent")

    def count(self, css):
        return self.js("return document.querySelectorAll(arguments[0]).length", css)

    def wait(self, what, condition, seconds=20):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            time.sleep(0.03)
        raise AssertionError(f"{what}: not within {seconds} seconds; {self.notices()}")

    def notices(self):
        ids = ("status", "rate", "error", "gone")
        return {name: self.js("return document.getElementById(arguments[0]).textContent", name) for name in ids}

    def keys(self, *keys, hold=None):
        actions = ActionChains(self.driver)
        if hold:
            actions.key_down(hold)
        for key in keys:
            actions.send_keys(key)
        if hold:
            actions.key_up(hold)
        actions.perform()

    def focused(self, attribute):
        return self.js("return document.activeElement[arguments[0]]", attribute)

    def point_at(self, element):
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        ActionChains(self.driver).move_to_element(element).perform()

    def picture(self, name):
        if self.screenshots:
            self.driver.save_screenshot(str(self.screenshots / f"{name}.png"))

    def size(self, width, height, mobile=False):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2 if mobile else 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def media(self, **features):
        features = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def answer(self, path, status, message, **headers):
        """From now on, this error is the answer."""
        body = json.dumps({"error": {"message": message, "type": "error", "param": None, "code": None}})
        self.js("answers[arguments[0]] = arguments[1]", path, {"status": status, "body": body, "headers": headers})

    def open(self):
        self.driver.get(self.url)
        self.wait("models are listed", lambda: self.js("return document.getElementById('model').length") > 0)
        self.js(WIRETAP)

    def settings(self, **values):
        self.js("""for (const [name, value] of Object.entries(arguments[0])) {
              const field = document.getElementsByName(name)[0];
              field.value = value;
              field.dispatchEvent(new Event("input", {bubbles: true}));
            }""", values)

    def prompt(self, text):
        prompt = self.by("#prompt")
        prompt.clear()
        prompt.send_keys(text)

    def finished(self, seconds=60):
        self.wait("the text ends", lambda: not self.shown("#stop"), seconds)
        assert not self.shown("#error"), self.notices()

    def generate(self, tokens=60, **settings):
        """Writes, and waits for the end."""
        self.settings(max_tokens=tokens, **settings)
        self.by("#generate").click()
        self.finished()

    def sent(self):
        """The last question to the model."""
        return self.js("return sent.at(-1)")


PROMPT = "In the beginning\nGod "


def streams(page):
    page.js(GROWTH)
    page.prompt(PROMPT)
    page.settings(max_tokens=SOME, seed=1)
    page.keys(Keys.ENTER, hold=Keys.CONTROL)
    page.finished()
    text = page.text()
    assert text.startswith(PROMPT), text[:100]
    made = page.count("#text .token:not(.prompt)")
    assert 0 < made <= SOME, made
    steps = page.js("return steps")
    assert steps > 2, f"{made} tokens came in {steps} steps"
    status = page.notices()["status"]
    assert "tokens/s" in status or made < 20, status
    return f"Ctrl+Enter writes on from the prompt: {made} tokens in {steps} steps, \"{status}\""


def line_ends(page):
    style = page.js("return getComputedStyle(document.getElementById('text')).whiteSpace")
    assert style in ("pre-wrap", "preserve wrap"), style
    first, last = (page.token(at, ".prompt").location["y"] for at in (0, page.count("#text .prompt") - 1))
    assert last > first, "the prompt's line end does not break the line"
    return "line ends are shown as line ends"


def shades(page):
    page.wait("tokens are shaded", lambda: page.count("#text .s1, #text .s2, #text .s3, #text .s4"))
    ground = "return getComputedStyle(document.querySelector(arguments[0])).backgroundColor"
    colors = [page.js(ground, css) for css in ("#legend .sample", *(f"#legend .s{n}" for n in range(1, 5)))]
    assert len(set(colors)) == 5, colors
    return "tokens are shaded by their probability, and a legend says how"


def receptive_field(page):
    field = page.js("""
        const nodes = [...document.querySelectorAll("#text .token")];
        const seen = nodes.map((node) => node.classList.contains("seen"));
        const count = seen.filter(Boolean).length;
        return {total: nodes.length, first: seen.indexOf(true), count, last: seen.at(-1)}""")
    reach = page.js("""
        const answer = new XMLHttpRequest();
        answer.open("GET", "v1/models", false);
        answer.send();
        const id = document.getElementById("model").value;
        return JSON.parse(answer.responseText).data.find((model) => model.id === id).receptive_field""")
    assert field["last"] and field["count"] == min(reach, field["total"]), (field, reach)
    assert field["first"] == max(0, field["total"] - reach), (field, reach)
    return f"the receptive field is drawn: the last {field['count']} of {field['total']} tokens, reach {reach}"


# stops the run as soon as text has come, as a key or a click would
STOPS_EARLY = """const watch = new MutationObserver(() => {
    if (document.querySelectorAll("#text .token:not(.prompt)").length > 5) {
        watch.disconnect();
        if (arguments[0] === "Escape") {
            document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {key: "Escape", bubbles: true}));
        } else {
            document.getElementById("stop").click();
        }
    }
});
watch.observe(document.getElementById("text"), {childList: true, subtree: true});"""


def stops(page):
    lengths = []
    for way in ("the button Stop", "Escape"):
        page.settings(max_tokens=MANY, seed=2)
        # within the page: a small model has written all before a click from outside arrives
        page.js(STOPS_EARLY, way)
        page.by("#generate").click()
        page.wait(f"{way} stops", lambda: not page.shown("#stop"), 5)
        length = page.count("#text .token")
        time.sleep(0.5)
        assert page.count("#text .token") == length, f"text still came after {way}"
        assert page.notices()["status"].startswith("Stopped"), page.notices()
        lengths.append(length)
    assert page.shown("#generate")
    return f"the button Stop and Escape stop it, after {lengths[0]} and {lengths[1]} tokens"


def continues(page):
    before = page.text()
    page.settings(max_tokens=20)
    page.by("#continue").click()
    page.finished()
    assert page.text().startswith(before) and len(page.text()) > len(before)
    assert page.sent()["prompt"] == before and not page.sent()["echo"]
    return "Continue goes on from the end"


def alternatives_on_hover(page):
    page.generate(seed=3)
    page.point_at(page.token(10))
    page.wait("alternatives open on hover", lambda: page.shown("#choices .choice"))
    choices = [choice.text for choice in page.all("#choices .choice")]
    assert len(choices) >= 2 and all("%" in choice for choice in choices), choices
    page.picture("hover")
    ActionChains(page.driver).move_to_element(page.by("#choices .choice")).perform()
    time.sleep(0.5)
    assert page.shown("#choices"), "the alternatives close under the mouse"
    page.point_at(page.by("h1"))
    page.wait("they close when the mouse leaves", lambda: not page.shown("#choices"), 3)
    return f"alternatives open on hover ({len(choices)}, with probabilities), can be pointed at, and close"


def alternatives_by_keyboard(page):
    page.by("#undo").send_keys(Keys.TAB)
    assert page.focused("className").split()[0] == "token", page.focused("outerHTML")
    assert page.count("#text [tabindex]") == 1, "more than one tab stop"
    page.wait("alternatives open on focus", lambda: page.shown("#choices"))
    page.keys(Keys.END)
    assert page.js("return document.activeElement === document.getElementById('text').lastChild")
    page.keys(*[Keys.ARROW_LEFT] * 5)
    assert page.js("return [...document.getElementById('text').children].at(-6) === document.activeElement")
    assert page.count("#text [tabindex]") == 1 and page.focused("role") == "button"
    assert page.shown("#choices .choice")
    outline = page.js("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none", "focus cannot be seen"
    y = page.js("return document.activeElement.getBoundingClientRect().top")
    page.keys(Keys.ARROW_UP)
    assert page.js("return document.activeElement.getBoundingClientRect().top") < y
    page.keys(Keys.ENTER)
    assert page.js("return document.getElementById('choices').contains(document.activeElement)")
    page.picture("keyboard")
    page.keys(Keys.ESCAPE)
    assert not page.shown("#choices") and page.focused("className").split()[0] == "token"
    return "one tab stop; arrow keys move, focus opens the alternatives, Enter enters them, Escape leaves"


def touch(page):
    token = page.token(8)
    page.js("arguments[0].scrollIntoView({block: 'center'})", token)
    rect = token.rect
    scrolled = page.js("return window.scrollY")
    point = [{"x": rect["x"] + rect["width"] / 2, "y": rect["y"] - scrolled + rect["height"] / 2}]
    page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": point})
    page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait("alternatives open on a tap", lambda: page.shown("#choices .choice"), 5)
    page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    page.keys(Keys.ESCAPE)
    return "a tap opens the alternatives"


def forks(page):
    page.generate(seed=4)
    before = page.text()
    head = "".join(page.tokens()[:page.count("#text .prompt") + 12])
    token = page.token(12)
    page.js("arguments[0].scrollIntoView({block: 'center'})", token)
    token.click()
    other = page.wait("alternatives", lambda: page.all("#choices .choice:not(.chosen):enabled"))[0]
    name = other.get_attribute("aria-label")
    page.settings(max_tokens=15)
    other.click()
    page.finished()
    sent, text = page.sent()["prompt"], page.text()
    assert sent.startswith(head) and sent != head, (head, sent)
    assert text.startswith(sent) and len(text) > len(sent), text
    assert page.count("#text .picked") == 1
    page.by("#undo").click()
    assert page.text() == before, "Undo does not bring the text back"
    return f"an alternative ({name}) forks the text, and Undo brings it back"


def forks_by_keyboard(page):
    page.token(5).click()
    page.keys(Keys.ESCAPE)
    head = "".join(page.tokens()[:page.count("#text .prompt") + 5])
    page.keys(Keys.ENTER, Keys.ARROW_UP)
    assert page.focused("textContent") == "Continue from here", page.focused("outerHTML")
    page.keys(Keys.ENTER)
    page.finished()
    assert page.sent()["prompt"] == head, (page.sent(), head)
    assert page.text().startswith(head) and len(page.text()) > len(head)
    return "Continue from here writes on from before a token, by keyboard alone"


def models(page):
    names = page.js("return [...document.getElementById('model').options].map((option) => option.value)")
    if len(names) == 1:
        assert not page.shown("#model") and names[0] in page.by("#about").text
        return f"one model, {names[0]}: nothing to choose"
    assert page.shown("#model")
    for name in reversed(names):
        page.js("""const select = document.getElementById("model"); select.value = arguments[0];
            select.dispatchEvent(new Event("change"))""", name)
        page.generate(tokens=10)
        assert page.sent()["model"] == name, page.sent()
        assert page.count("#text .token:not(.prompt)"), name
    return f"models can be chosen: {', '.join(names)}"


def settings(page):
    page.by("#settings summary").click()
    wanted = {"temperature": 0.5, "top_p": 0.9, "top_k": 7, "min_p": 0.01, "repetition_penalty": 1.1, "max_tokens": 12,
              "seed": 5}
    page.settings(**wanted)
    page.by("#generate").click()
    page.finished()
    sent = page.sent()
    assert {name: sent.get(name) for name in wanted} == wanted, sent
    first = page.text()
    page.by("#generate").click()
    page.finished()
    assert page.text() == first, "the same seed writes another text"
    page.picture("settings")
    page.open()
    values = page.js("""const fields = [...document.querySelectorAll("#fields input")];
        return Object.fromEntries(fields.map((field) => [field.name, Number(field.value)]))""")
    assert values == wanted, values
    page.settings(top_p=3)
    page.js("sent.length = 0")
    page.by("#generate").click()
    assert page.js("return sent.length") == 0 and page.by("#settings").get_attribute("open") is not None
    page.by("#defaults").click()
    assert page.js("return document.getElementsByName('temperature')[0].value") == "0.8"
    page.prompt(PROMPT)
    return "settings are sent and remembered, a seed repeats, wrong values are refused, defaults come back"


def without_storage(page):
    script = "for (const name of ['localStorage', 'sessionStorage'])" \
             "Object.defineProperty(window, name, {get() { throw new DOMException('no', 'SecurityError') }})"
    added = page.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})
    page.open()
    page.prompt(PROMPT)
    page.generate(tokens=10)
    assert page.count("#text .token:not(.prompt)")
    page.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": added["identifier"]})
    page.open()
    page.prompt(PROMPT)
    return "works without localStorage"


def errors(page):
    page.generate(tokens=10)
    before = page.text()
    page.answer("v1/completions", 429, "Too many texts at once.", **{"Retry-After": "3"})
    page.by("#generate").click()
    page.wait("an error is shown", lambda: page.shown("#error"))
    message = page.by("#error").text
    assert "Too many texts at once." in message and "3 s" in message, message
    assert page.text() == before and page.shown("#generate")
    page.js("answers = {}")
    return f"an error of the server is shown, and the text stays: \"{message}\""


def api_key(page):
    page.answer("v1/completions", 401, "Wrong key.")
    page.by("#generate").click()
    page.wait("a key is asked for", lambda: page.shown("#secret"))
    assert page.by("#secret").get_attribute("type") == "password" and "Wrong key." in page.by("#error").text
    page.picture("key")
    page.js("answers = {}")
    page.by("#secret").send_keys("open sesame", Keys.ENTER)
    page.wait("the key is taken", lambda: not page.shown("#secret"))
    page.answer("v1/completions", 400, "Refused.")
    page.by("#generate").click()
    page.wait("an answer", lambda: "Refused." in page.by("#error").text)
    assert page.sent()["headers"]["Authorization"] == "Bearer open sesame", page.sent()
    page.js("answers = {}; sessionStorage.clear()")
    page.open()
    page.prompt(PROMPT)
    return "a key is asked for when the server wants one, and sent"


def phone(page):
    page.size(*PHONE, mobile=True)
    page.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
    page.open()
    page.prompt(PROMPT)
    page.generate(tokens=150, seed=6)
    no_overflow(page, "text")
    page.js("window.scrollTo(0, 0)")
    page.picture("phone")
    for at in (0, 5, 20, 60, 100):
        page.js("arguments[0]?.click()", page.token(at))
        assert page.shown("#choices")
        no_overflow(page, "alternatives")
        left, right, width = page.js("""const box = document.getElementById("choices").getBoundingClientRect();
            return [box.left, box.right, innerWidth]""")
        assert 0 <= left < right <= width, "alternatives leave the screen"
    page.picture("phone-alternatives")
    page.keys(Keys.ESCAPE)
    page.js("document.getElementById('settings').open = true; window.scrollTo(0, 0)")
    no_overflow(page, "settings")
    page.picture("phone-settings")
    page.js("document.getElementById('settings').open = false")
    page.size(*WIDE)
    return f"{PHONE[0]} pixels are wide enough: nothing scrolls sideways"


def no_overflow(page, where):
    width, inner = page.js("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width <= inner, f"{where}: {width} pixels on a screen of {inner}"


def luminance(page, css):
    color = page.js("return getComputedStyle(document.querySelector(arguments[0])).backgroundColor", css)
    red, green, blue = (int(part) for part in color[color.index("(") + 1:-1].split(",")[:3])
    return (2 * red + 7 * green + blue) / 2550


def dark(page):
    page.media(prefers_color_scheme="dark")
    assert luminance(page, "body") < 0.15 and luminance(page, "#paper") < 0.15
    page.media(prefers_color_scheme="light")
    assert luminance(page, "body") > 0.85 and luminance(page, "#paper") > 0.85
    return "dark where the system is dark, light where it is light"


def motion(page):
    animation = "return getComputedStyle(document.querySelector('#text'), '::after').animationName"
    page.js("document.getElementById('paper').classList.add('running')")
    page.media(prefers_reduced_motion="no-preference")
    moving = page.js(animation)
    page.media(prefers_reduced_motion="reduce")
    assert moving != "none" and page.js(animation) == "none", (moving, page.js(animation))
    page.js("document.getElementById('paper').classList.remove('running')")
    return "nothing blinks where motion is not wanted"


def long_text(page):
    page.js(FLOOD)
    start = time.monotonic()
    page.by("#generate").click()
    page.wait("10,000 tokens", lambda: page.js("return made") >= 10000 and not page.shown("#stop"), 60)
    seconds = time.monotonic() - start
    assert page.count("#text .token") == 10000
    page.by("#undo").send_keys(Keys.TAB)
    page.keys(Keys.END)
    start = time.monotonic()
    page.keys(*[Keys.ARROW_LEFT] * 20)
    step = (time.monotonic() - start) / 20
    page.keys(Keys.ESCAPE)
    page.js("answers = {}; window.scrollTo(0, 0)")
    page.picture("long")
    assert seconds < 40 and step < 0.3, (seconds, step)
    page.by("#undo").click()
    return f"10,000 tokens come in {seconds:.1f} s, a step of the arrow keys takes {1000 * step:.0f} ms"


def parts_of_characters(page):
    """Tokens that are bytes: the offsets say where the text goes on."""
    page.prompt("e")
    page.js("""const tokens = ["e", "bytes:\\\\xc3", "bytes:\\\\xa9", "!"];
        const top = {a: -1, "bytes:\\\\xc2": -2, "": -3};
        answers["v1/completions"] = {body: event("e\u00e9!", tokens, [0, 1, 2, 2], top) + DONE}""")
    page.by("#generate").click()
    page.finished()
    page.js("answers = {}")
    assert page.tokens() == ["e", "\u00e9", "", "!"] and page.tokens(".prompt") == ["e"], page.tokens()
    page.token(0).click()
    choices = {choice.text.split()[0]: choice.is_enabled() for choice in page.all("#choices .choice")}
    wanted = {"a": True, "bytes:\\xc2": False, "no": False}
    assert {name: choices.get(name) for name in wanted} == wanted, choices
    page.keys(Keys.ESCAPE)
    page.prompt(PROMPT)
    return "tokens that are parts of characters do not spoil the text, and cannot be chosen"


def comes_back(page):
    page.js("answers = {health: {gone: true}, 'v1/completions': {gone: true}}")
    before = page.text()
    page.by("#generate").click()
    page.wait("the page says that the server is gone", lambda: page.shown("#gone"))
    assert page.text() == before
    page.js("answers = {}")
    page.wait("the page sees it come back", lambda: not page.shown("#gone"), 10)
    page.generate(tokens=10)
    return "a server that cannot be reached is named, and the page recovers by itself"


def axe(page, script):
    """No serious violation, in each of these states and in both colors."""
    page.js(script)
    checked = []

    def check(where):
        checked.append(where)
        found = page.driver.execute_async_script("""const done = arguments[0];
            const broken = (error) => done([{impact: "critical", id: String(error), nodes: []}]);
            axe.run().then((found) => done(found.violations), broken)""")
        bad = [f"{rule['id']}: {[node['html'][:120] for node in rule['nodes'][:3]]}"
               for rule in found if rule["impact"] in ("serious", "critical")]
        assert not bad, f"{where}: {bad}"

    for scheme in ("light", "dark"):
        page.media(prefers_color_scheme=scheme)
        check(f"{scheme}, text")
        page.js("arguments[0].click()", page.token(30))
        check(f"{scheme}, alternatives")
        page.keys(Keys.ESCAPE)
        page.js("""document.getElementById('settings').open = true; document.getElementById('key').hidden = false;
            for (const id of ["gone", "error"]) document.getElementById(id).textContent = "A message";""")
        check(f"{scheme}, settings, key and messages")
        page.js("""document.getElementById('settings').open = false; document.getElementById('key').hidden = true;
            for (const id of ["gone", "error"]) document.getElementById(id).textContent = "";""")
    page.media(prefers_color_scheme="light")
    return f"axe-core finds nothing serious in {len(checked)} states"


def portraits(page):
    page.open()
    page.prompt(PROMPT)
    page.generate(tokens=400, seed=7)
    page.js("window.scrollTo(0, 0)")
    page.picture("light")
    page.media(prefers_color_scheme="dark")
    page.picture("dark")
    page.js("arguments[0].click()", page.token(150))
    page.picture("dark-alternatives")
    page.keys(Keys.ESCAPE)
    page.media(prefers_color_scheme="light")
    return "400 tokens, in both colors"


def gone(page, command):
    page.settings(max_tokens=MANY)
    page.by("#generate").click()
    page.wait("text comes", lambda: page.count("#text .token:not(.prompt)") > 5)
    subprocess.run(command, shell=True, check=True)
    page.wait("the page says that the server is gone", lambda: page.shown("#gone"), 20)
    page.wait("nothing is said to run", lambda: not page.shown("#stop"), 5)
    assert page.count("#text .token"), "the text is lost"
    page.js("window.scrollTo(0, 0)")
    page.picture("gone")
    return f"server stopped while it wrote: \"{page.by('#gone').text}\""


def own_only(page):
    origin, loaded = page.js("""const loaded = performance.getEntriesByType("resource");
        return [location.origin, loaded.map((entry) => entry.name)]""")
    strange = [name for name in loaded if not name.startswith((f"{origin}/", "data:"))]
    assert not strange, strange
    return "nothing is loaded from elsewhere"


def console(page):
    """No error of a script, nothing that the Content-Security-Policy refused."""
    bad = [entry["message"] for entry in page.driver.get_log("browser")
           if entry["level"] == "SEVERE" and "Failed to load resource" not in entry["message"]]
    assert not bad, bad
    return "the browser reports no error"


def start_browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    if not chromium or not driver:
        print("NOT TESTED: chromium or chromedriver is missing (apt-get install chromium chromium-driver)",
              file=sys.stderr)
        sys.exit(NO_BROWSER)
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    except WebDriverException as error:
        print(f"NOT TESTED: the browser does not start: {error.msg}", file=sys.stderr)
        sys.exit(NO_BROWSER)


CHECKS = [streams, line_ends, shades, receptive_field, stops, continues, alternatives_on_hover,
          alternatives_by_keyboard, touch, forks, forks_by_keyboard, models, settings, without_storage, errors, api_key,
          phone, dark, motion, comes_back, long_text, parts_of_characters, portraits]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--screenshots", type=pathlib.Path)
    parser.add_argument("--axe", type=pathlib.Path, help="axe.min.js")
    parser.add_argument("--stop-command", help="shell command that stops the server")
    args = parser.parse_args()
    if args.screenshots:
        args.screenshots.mkdir(parents=True, exist_ok=True)
    failed = 0
    driver = start_browser()
    page = Page(driver, args.url, args.screenshots)

    def check(function, *arguments):
        nonlocal failed
        try:
            print(f"ok      {function.__name__}: {function(page, *arguments)}", flush=True)
        except (AssertionError, WebDriverException) as error:
            failed += 1
            print(f"FAILED  {function.__name__}: {error}", flush=True)
            page.picture(f"failed-{function.__name__}")

    try:
        page.size(*WIDE)
        page.media(prefers_color_scheme="light")
        page.open()
        assert driver.title == "tcn", driver.title
        page.picture("empty")
        for function in CHECKS:
            check(function)
        if args.axe:
            check(axe, args.axe.read_text())
        check(own_only)
        check(console)
        if args.stop_command:
            check(gone, args.stop_command)
    finally:
        driver.quit()
    print(f"{failed} failed" if failed else "all hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
