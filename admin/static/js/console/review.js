// Feedback review: what was rated 👎 or not answered, what would have been needed, and answers that people wrote.
import { el, query, start, t, tabs } from "./base.js";
import { drawCurated } from "./review/curated.js";
import { drawOne } from "./review/one.js";
import { drawGaps } from "./review/gaps.js";
import { drawQueue } from "./review/queue.js";
import { WORDS as DASHBOARD } from "./words/dashboard.js";
import { WORDS } from "./words/review.js";

void start({
  words: { ...DASHBOARD, ...WORDS },
  async draw(root, me) {
    document.head.append(el("link", { rel: "stylesheet", href: "/static/css/prose.css" })); // for answers
    const show = async () => {
      const answer = query.get("answer");
      if (answer) return drawOne(root, answer, me, show);
      root.replaceChildren(tabs([
        { name: "queue", title: t("review_tab"), draw: (part) => drawQueue(part, show) },
        { name: "gaps", title: t("review_tab_gaps"), draw: (part) => drawGaps(part, show) },
        { name: "curated", title: t("review_tab_curated"), draw: (part) => drawCurated(part) },
      ]).node);
    };
    addEventListener("popstate", () => void show());
    await show();
  },
});
