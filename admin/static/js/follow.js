// Scrolling: follow an answer while it grows, but only for somebody who is reading its end.

const NEAR = 80; // pixels

export class Follower {
  /** @param {HTMLElement} pane what scrolls @param {HTMLButtonElement} jump */
  constructor(pane, jump) {
    this.pane = pane;
    this.jump = jump;
    this.following = true;
    pane.addEventListener("scroll", () => this.#look(), { passive: true });
    // Turning the wheel or paging up is a wish to stay, even while new text arrives.
    pane.addEventListener("wheel", (event) => { if (event.deltaY < 0) this.following = false; }, { passive: true });
    jump.addEventListener("click", () => this.toEnd(true));
    new ResizeObserver(() => this.moved()).observe(pane);
  }

  #rest() {
    return this.pane.scrollHeight - this.pane.scrollTop - this.pane.clientHeight;
  }

  #look() {
    this.following = this.#rest() < NEAR;
    this.jump.hidden = this.following;
  }

  /** The content has grown. */
  moved() {
    if (this.following) this.pane.scrollTop = this.pane.scrollHeight;
    else this.jump.hidden = this.#rest() < NEAR;
  }

  /** @param {boolean} [smooth] */
  toEnd(smooth = false) {
    this.following = true;
    this.jump.hidden = true;
    this.pane.scrollTo({ top: this.pane.scrollHeight, behavior: smooth ? "smooth" : "instant" });
  }
}
