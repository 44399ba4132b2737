/** How a request for a WebSocket travels among sidecars: as GET with this header, which no client and no app sees. */
export const upgradeName = "weft-upgrade";
