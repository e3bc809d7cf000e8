// Browsers start no worker of a page that is opened from disk. There the search runs in an empty
// frame instead, which has the same calls; its scripts come by script tags, which disk allows.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      this.waiting = []
      this.frame = document.createElement("iframe")
      this.frame.hidden = true
      document.body.append(this.frame)
      const inside = this.frame.contentWindow
      const load = address => new Promise((done, failed) => {
        const script = inside.document.createElement("script")
        script.src = address
        script.onload = done
        script.onerror = () => failed(new Error(`${address}: not loaded`))
        inside.document.body.append(script)
      })
      inside.postMessage = data => this.tell(this, data)
      inside.importScripts = (...addresses) => Promise.all(addresses.map(load))
      load(new URL(url, document.baseURI).href).then(() => {
        this.inside = inside
        for (const data of this.waiting) this.tell(inside, data)
      })
    }

    tell(target, data) {
      const event = new MessageEvent("message", {data})
      setTimeout(() => {
        target.dispatchEvent(event)
        if (target === this && this.onmessage) this.onmessage(event)
      })
    }

    postMessage(data) {
      if (this.inside) this.tell(this.inside, data)
      else this.waiting.push(data)
    }

    terminate() {
      this.frame.remove()
    }
  }
}
