// What a knowledge base is like at the moment, in badges.
import { badge, t } from "../base.js";

/**
 * @typedef {{name: string, description: string, private: boolean, documents: number, chunks: number, size: number, waiting: number,
 *   failed: number, vectors: boolean, embedder: string, indexes: string[], can_edit: boolean, updated_at: string}} Kb
 */

/** @param {Kb} kb @returns {HTMLElement[]} */
export function stateBadges(kb) {
  const found = [badge(t(kb.private ? "bases_private" : "bases_public"), kb.private ? "warn" : "")];
  if (kb.waiting) found.push(badge(t("bases_waiting", { n: kb.waiting }), "busy"));
  if (kb.failed) found.push(badge(t("bases_failed", { n: kb.failed }), "bad"));
  if (kb.indexes.includes("building")) found.push(badge(t("bases_state_building"), "busy"));
  if (kb.indexes.includes("ready")) found.push(badge(t("bases_state_ready"), "good"));
  if (kb.indexes.includes("former")) found.push(badge(t("bases_state_former")));
  return found;
}
