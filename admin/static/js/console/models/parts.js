// Pieces of the page «Models» that stand in more than one place.
import { badge, el, plain, stack, t } from "../base.js";

/** How a test went. @param {{ok: boolean, error: string, first_ms: number | null, total_ms: number, text: string, details: Record<string, number>}} tried */
export function testResult(tried) {
  if (!tried.ok) return el("p", { class: "models-tried bad" }, badge(t("models_test_bad"), "bad"), " ", plain(tried.error));
  const total = Math.round(tried.total_ms);
  const sentence = tried.details.dimension
    ? t("models_test_vectors", { dimension: tried.details.dimension, total, near: tried.details.near, far: tried.details.far })
    : tried.first_ms === null ? t("models_test_done", { total }) : t("models_test_good", { first: Math.round(tried.first_ms), total });
  return stack(el("p", { class: "models-tried good" }, sentence), tried.text ? el("blockquote", { class: "models-said" }, plain(tried.text)) : null);
}
