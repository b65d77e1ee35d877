"""What replies look like: CommonMark and what GitHub adds to it, drawn while it comes."""

import pytest

from tests.serve.page.driving import button, send

pytestmark = pytest.mark.slow
# Shows the texts one after the other in the same place; what that place then holds.
SHOW = """async (texts) => {
  const { showMarkdown } = await import('/web/markdown.js');
  const node = document.createElement('div');
  for (const text of texts) showMarkdown(node, text);
  return node.innerHTML.replace(/ dir="(auto|ltr)"/g, '');
}"""
CODE = """async (text) => {
  const { showMarkdown } = await import('/web/markdown.js');
  const node = document.createElement('div');
  showMarkdown(node, text);
  return [...node.querySelectorAll('.code')].map((block) =>
    [block.querySelector('.bar span').textContent, block.querySelector('pre').textContent]);
}"""
STORY = """# Head
One *em*, **strong `code`** and __plain__, a_b_c, 2*3*4, \\*star\\*.
> quoted **so**

1. one
   - nested
     deeper
2. two

| a | b |
|:--|--:|
| 1 | `2` | 3 |
| x |

```py
if a < b:

    pass
```
---
see https://example.org/a_b. and [there](http://example.org/x)
- [x] done
- [ ] to do

Title
---
[late] &lt;&#65;&nope; ![a cat](https://example.org/cat.png)

[late]: https://example.org/late
~~~
open fence"""
LINK = 'target="_blank" rel="noopener noreferrer"'
BLOCKS = [
    ("***both***", "<p><em><strong>both</strong></em></p>"),
    ("__bold__ ~~struck~~ snake_case_name", "<p><strong>bold</strong> <del>struck</del> snake"),
    ("<b>&copy;</b>\nline", "<p>&lt;b&gt;&amp;copy;&lt;/b&gt;<br>line</p>"),
    ("- a\n\n  b\n- c", "<li><p>a</p><p>b</p></li>"),
    ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
    ("> a\nlazy\n> - b", "<blockquote><p>a<br>lazy</p><ul><li>b</li></ul></blockquote>"),
    ("a\nb\n===\n", "<h2>a<br>b</h2>"),
    ("| a |\n|:-:|\n| x \\| y |", '<td class="to-center">x | y</td>'),
    ("[x](/local) [y](javascript:z)", "<p>[x](/local) [y](javascript:z)</p>"),
    ("me@a.example", ">me@a.example</a>"),
    ("`` a`b `` \\`", "<code>a`b</code> `"),
]
FENCES = [
    ("```{r}\nx <- 1\n```\nThat was R.", ["r", "x <- 1"]),
    ('```python title="a.py"\nprint(1)\n```\nDone **now**.', ["python · a.py", "print(1)"]),
    ("``` python\nprint(1)\n``` and on\n```\nafter", ["python", "print(1)\n``` and on"]),
    ("~~~~\n~~~\n```\n~~~~\nafter", ["code", "~~~\n```"]),
    ("1. one\n   ```python\n   if a:\n       b()\n   ```\n2. two", ["python", "if a:\n    b()"]),
    ("- a\n\n  ```{.js .n}\n  x\n  ```", ["js", "x"]),
    ("> ```c++\n> x\n> ```\n\nafter", ["c++", "x"]),
    ("```\nnever closed", ["code", "never closed"]),
]


def test_markdown_is_read_as_commonmark_and_github_have_it(page):
    for source, expected in BLOCKS:
        assert expected in page.evaluate(SHOW, [source]), source
    for source, expected in FENCES:
        assert page.evaluate(CODE, source) == [expected], source
        assert "after" not in source or "<p>after</p>" in page.evaluate(SHOW, [source])


def test_markdown_that_came_in_pieces_is_what_it_is_at_once(page):
    whole = page.evaluate(SHOW, [STORY])
    assert page.evaluate(SHOW, [STORY[:end] for end in range(1, len(STORY) + 1)]) == whole
    for piece in (
        "<h2>Head</h2>",
        "<em>em</em>, <strong>strong <code>code</code></strong>",
        "a_b_c, 2*3*4, *star*.",
        "<blockquote><p>quoted <strong>so</strong></p></blockquote>",
        '<ol start="1"><li>one<ul><li>nested<br>deeper</li></ul></li><li>two</li></ol>',
        '<thead><tr><th class="to-left">a</th><th class="to-right">b</th></tr></thead>',
        '<td class="to-right"><code>2</code></td></tr><tr><td class="to-left">x</td><td',
        '<code><span class="code-keyword">if</span> a &lt; b:\n\n    ',
        "<hr>",
        ">https://example.org/a_b</a>. and <a ",
        'aria-label="done">☑</span>done</li>',
        'aria-label="to do">☐</span>to do</li>',
        "<h3>Title</h3>",
        f'<a href="https://example.org/late" title="https://example.org/late" {LINK}>late</a> '
        "&lt;A&amp;nope; ",
        '<a class="picture" href="https://example.org/cat.png" title="https://example.org/cat.'
        f'png" {LINK}><svg',
        "</svg>a cat</a>",
        "<code>open fence</code>",
    ):
        assert piece in whole


def test_code_in_a_list_is_copied_without_the_list_s_indent_and_colours_change_no_text(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    send(page, "hi")
    page.evaluate(
        """async (text) => { const { showMarkdown } = await import('/web/markdown.js');
        showMarkdown(document.querySelector('.turn.assistant .body'), text) }""",
        '1. one\n   ```python\n   def f():\n       return "<b>"  # &lt;\n   ```',
    )
    button(page, "Copy code").click()
    page.get_by_text("Copied").first.wait_for()
    code = 'def f():\n    return "<b>"  # &lt;'
    assert page.evaluate("navigator.clipboard.readText()") == code
    block = page.locator(".code pre")
    assert block.inner_text() == code
    assert block.locator(".code-keyword").all_inner_texts() == ["def", "return"]
    assert block.locator(".code-string, .code-comment").all_inner_texts() == ['"<b>"', "# &lt;"]


def test_a_long_reply_is_drawn_as_fast_as_it_comes(page):
    spent = """async (story) => {
      const { showMarkdown } = await import('/web/markdown.js');
      const node = document.createElement('div');
      const whole = story.repeat(50);
      showMarkdown(node, whole);
      const first = node.firstChild, began = performance.now();
      for (let n = 1; n <= 50; n++) showMarkdown(node, whole + ' word'.repeat(n));
      return [first === node.firstChild, (performance.now() - began) / 50, whole.length];
    }"""
    kept, ms, length = page.evaluate(spent, STORY[: STORY.index("Title")])
    assert kept and length > 12_000
    assert ms < 50, "a token of a reply of 4,000 takes longer to draw than many models to make"
